"""The command that prints recommendations, and its refusals in one line."""

import pytest

from fedpeft_jax import load
from tests.small_runs import finished, run_cli, small_runs


@pytest.fixture(scope="module")
def path():
    with small_runs():
        yield finished().path


def test_a_users_history_and_recommendations(path, capsys):
    model = load(path)
    assert run_cli(f"--run={path}", "--user=7", "--k=4", script="recommend") == 0
    printed = capsys.readouterr().out
    history = model.history(7)
    assert f"user 7: the last 10 of {history.height} items" in printed
    assert "held out" in printed and "recommended to user 7" in printed
    for title in (*history.tail(10)["title"], *model.recommend(7, k=4)["title"]):
        assert title.split()[0] in printed


def test_the_neighbours_of_an_item(path, capsys):
    model = load(path)
    assert run_cli(f"--run={path}", "--item=3", "--k=2", script="recommend") == 0
    printed = capsys.readouterr().out
    assert "nearest to item 3 (" in printed
    for _, item, _, score in model.similar_items(3, k=2).iter_rows():
        assert f"{score:.3f}" in printed and f"{item}" in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "set --run=DIR"),
        (("--run=/no/such/run", "--user=1"), "/no/such/run does not exist"),
        (("--run={}",), "set either --user=ID or --item=ID"),
        (("--run={}", "--user=1", "--item=1"), "set either --user=ID or --item=ID"),
        (("--run={}", "--user=eve"), "there is no user 'eve'"),
        (("--run={}", "--item=999"), "there is no item '999'"),
        (("--run={}", "--user=1", "--k=0"), "k=0 must be an integer of at least 1"),
        (("--run={}", "--user=1", "--k=x"), "k"),
        (("--run={}", "--user=1", "--kk=3"), "kk"),
    ],
)
def test_refusals_are_one_line(path, capsys, arguments, says):
    given = [argument.format(path) for argument in arguments]
    assert run_cli(*given, script="recommend") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and says in line
