"""The command costs: its table, its file, and what it refuses."""

import json
import re

import pytest

from fedpeft_jax.commands.costs import ITEM_EMBEDDINGS
from tests.helpers import ROOT
from tests.small_runs import FEATURES, NUM_ITEMS, run_cli, small_runs

ROWS = ("full=trained embedding=none warm_up_rounds=0", "embedding=lora(rank=2)")

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


def costs(*arguments, rows=ROWS, **settings):
    vary = [f"--vary={row}" for row in rows]
    return run_cli(*vary, *arguments, script="costs", **settings)


def test_a_table_and_the_same_figures_in_a_file(tmp_path, capsys):
    path = tmp_path / "costs.jsonl"
    assert costs(f"--json={path}") == 0
    printed, err = capsys.readouterr()
    assert err.count("pretraining 100/100") == 1  # the second row reads the result
    full, lora = (json.loads(line) for line in path.read_text().splitlines())
    assert (full["row"], full["settings"]) == ("0", ROWS[0])
    assert full["uplink"] == 4 * NUM_ITEMS * FEATURES
    assert lora["uplink"] == 4 * 2 * (NUM_ITEMS + FEATURES)
    assert lora["capacity"] == {"vectors": 40, "rank": 2, "vectors_with_table": 40}
    lines = printed.splitlines()
    assert lines[:2] == [f"row {i}: {row}" for i, row in enumerate(ROWS)]
    (found,) = [line.split() for line in lines if re.match(r"1\s+384 B", line)]
    assert found[9] == f"{lora['flops'] / 1e6:.3g}"
    assert found[11:] == ["40", "2", "40"]
    assert all(len(line) <= 80 for line in lines[2:-1])
    assert "synthetic: 60 clients, 40 items" in lines[-1]
    assert f"one client with {lora['client_items']} training items" in lines[-1]


def test_the_default_rows_are_those_of_the_grid(capsys):
    path = ROOT / "experiments" / "grids" / "matrix.flags"
    lines = path.read_text().splitlines()
    rows = [x.removeprefix("--vary=") for x in lines if not x.startswith("#")]
    assert rows == list(ITEM_EMBEDDINGS.values())
    # A setting that only the rows without a full table refuse.
    assert costs(rows=(), warm_up_rounds=0, full_init="random") == 2
    assert "no effect with --full=none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--vary=embedding",), "'embedding' is not setting=value"),
        (("--vary=embedding=lora(rank=0)",), "rank"),
        (("--vary=full=none", "--vary=warm_up_rounds=9 rounds=2"), "--warm_up_rounds"),
        (("--json={}/none/file",), "No such file or directory): name a file"),
        (("more",), "unexpected argument"),
    ],
)
def test_what_is_refused(tmp_path, capsys, arguments, says):
    given = [argument.format(tmp_path) for argument in arguments]
    assert costs(*given, rows=()) == 2 if "--vary" in given[0] else costs(*given) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("error: ") and says in line and not out
