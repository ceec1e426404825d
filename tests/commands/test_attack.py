"""The command attack: its table, its file, and what it refuses."""

import json
import re

import pytest

from tests.small_runs import run_cli, small_runs

ROWS = ("full=trained embedding=none warm_up_rounds=0",)

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


def attack(out, *arguments, rows=ROWS, **settings):
    vary = [f"--vary={row}" for row in rows]
    return run_cli(*vary, *arguments, script="attack", out=out, **settings)


def test_a_table_and_the_same_figures_in_a_file(tmp_path, capsys):
    sizes = ("--victims=6", "--observed_rounds=1,2", "--secure_sums=1,4")
    assert attack(tmp_path, *sizes, "--attacks=moves,sparse", rounds=2) == 0
    printed, notes = capsys.readouterr()
    assert "observing 6 clients after round 2" in notes
    content = json.loads((tmp_path / "attack.json").read_text())
    assert content["format"] == 1
    assert [row["row"] for row in content["rows"]] == list(ROWS)
    # The trained table has no vectors that items share, so `sparse` does not apply.
    assert {e["attack"] for e in content["rows"][0]["attacks"]} == {
        "moves",
        "popularity",
    }
    first = content["rows"][0]["attacks"][0]
    assert (first["attack"], first["knows_rows"]) == ("moves", True)
    lines = printed.splitlines()
    line = next(x for x in lines if re.match(r"1 round\s+moves", x))
    assert f"{first['auc']['mean']:.3f}±" in line
    for seen in ("2 rounds", "1 of 4", "sum of 4"):
        assert any(x.startswith(seen) for x in lines)
    assert all(len(x) <= 100 for x in lines)
    assert "The attacker is the server" in printed
    assert content["knowledge"][:20] in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--vary=embedding",), "'embedding' is not setting=value"),
        (("--observed_rounds=1,many",), "--observed_rounds=1,many"),
        (("--victims=0",), "--victims=0"),
        (("--attacks=walk",), "'walk' is not among moves, sparse, shadow"),
        (("--attack_round=1",), "--attack_round=1 is outside the main phase"),
        (("--victims=61",), "lower --victims"),
        (("more",), "unexpected argument"),
    ],
)
def test_what_is_refused(tmp_path, capsys, arguments, says):
    given = ("--secure_sums=1", *arguments)
    assert attack(tmp_path / "out", *given, rows=()) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and says in last
