"""The text of a grid: sweeps, pairs, rows, files of cells, and their errors."""

import json

import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import cli
from fedpeft_jax.grids.addresses import apply
from fedpeft_jax.grids.axes import read_cells, read_row, read_sweep, read_zip
from fedpeft_jax.grids.cells import expand, slug
from fedpeft_jax.grids.command import read_axes


def values(axis):
    return [value for changes in axis for value in changes.values()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("embedding=lora(rank=2)|lora(rank=4)", ["lora(rank=2)", "lora(rank=4)"]),
        ("seed=0:5", [0, 1, 2, 3, 4]),
        ("seed=0:10:2", [0, 2, 4, 6, 8]),
        ("seed=3|1", [3, 1]),
        ("client_optimizer.learning_rate=0.003|0.01", [0.003, 0.01]),
        ("embedding.rank=1:4", [1, 2, 3]),
        ("latent_scale=0.5|1", [0.5, 1.0]),
        (
            "embedding=rq(quantizer='kmeans')|hash",
            ["rq(quantizer='kmeans')", "hash"],
        ),
        ("dataset=a:b|'c|d'", ["a:b", "c|d"]),  # no range, and a quoted separator
        ("fetch=true|False", [True, False]),
        ("backbone=fedncf(hidden=(8, 4))", ["fedncf(hidden=(8, 4))"]),
    ],
)
def test_the_values_of_a_sweep(text, expected):
    found = values(read_sweep(text))
    assert found == expected and list(map(type, found)) == list(map(type, expected))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed", "write setting=one|another"),
        ("seed=", "write setting=one|another"),
        ("seed=1||2", "empty value"),
        ("seed=5:5", "has no values"),
        ("seed=0|0", "twice"),
        ("sed=1", "there is no setting 'sed'"),
        ("rounds.x=1", "`rounds` is no spec"),
        ("embedding.=1", "is not setting.argument"),
        ("embedding.rank=1 2", "is no number, text or tuple"),
        ("embedding.rank=...", "is no number, text or tuple"),
        ("embedding.rank=1j", "is no number, text or tuple"),
        ("seed=0:100000000000000000000", "has 100000000000000000000 values"),
        ("rounds=many", "'many' is not an integer"),
        ("fetch=maybe", "not true or false"),
        ("embedding=lora(rank=2|hash", "parenthesis ( that is not closed"),
        ("embedding=rq(quantizer='kmeans)|x", "a quote that is not closed"),
        ("embedding=lora)", "without its start"),
    ],
)
def test_a_sweep_that_cannot_be_read_is_one_line(text, says):
    with pytest.raises(InputError) as caught:
        read_sweep(text)
    message = str(caught.value)
    assert message.startswith(f"--sweep={text!r}") and says in message
    assert "\n" not in message


def test_paired_lists():
    paired = read_zip(["rounds=10|20|20", "seed=0:3"])
    assert [tuple(changes.values()) for changes in paired] == [
        (10, 0), (20, 1), (20, 2),
    ]  # fmt: skip
    with pytest.raises(InputError, match="one length, and these have rounds 2, seed 3"):
        read_zip(["rounds=10|20", "seed=0:3"])
    with pytest.raises(InputError, match="`seed` twice"):
        read_zip(["seed=1|2", "seed=3|4"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "embedding=rq(quantizer='kmeans')",
            {"embedding": "rq(quantizer='kmeans')"},
        ),
        (
            "privacy='gaussian(noise_multiplier=1.0, clip=0.5)' rounds=3",
            {"privacy": "gaussian(noise_multiplier=1.0, clip=0.5)", "rounds": 3},
        ),
        (
            "embedding='rq(quantizer=\"kmeans\")'",
            {"embedding": 'rq(quantizer="kmeans")'},
        ),
        ("'embedding=lora(rank = 2)'", {"embedding": "lora(rank = 2)"}),
        ("", {}),
    ],
)
def test_the_quotes_of_a_row(text, expected):
    assert read_row(text) == expected


def test_a_row_keeps_quotes_up_to_the_configuration():
    row = read_row("embedding=rq(quantizer='kmeans')")
    assert cli.configure_row(row).model.embedding == "rq(quantizer='kmeans')"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("embedding=rq(quantizer='kmeans)", "a quote that is not closed"),
        ("privacy='gaussian", "a quote that is not closed"),
        ("embedding", "'embedding' is not setting=value"),
        ("rank=4", "there is no setting 'rank'"),
        ("rounds.x=4", "`rounds` is no spec"),
        ("rounds=1 rounds=2", "the row has `rounds` twice"),
    ],
)
def test_a_row_that_cannot_be_read_is_one_line(text, says):
    with pytest.raises(InputError) as caught:
        read_row(text)
    assert says in str(caught.value) and "--vary=" in str(caught.value)


def test_a_file_of_cells(tmp_path):
    lines = tmp_path / "cells.jsonl"
    rows = [{"embedding.rank": 2, "rounds": 30}, {"backbone": "fedmf", "rounds": None}]
    lines.write_text("\n\n".join(map(json.dumps, rows)))
    assert read_cells(lines) == [rows[0], {"backbone": "fedmf"}]
    table = tmp_path / "cells.csv"
    table.write_text('embedding,seed\n"fedncf(hidden=(8,4))",1\nlora,\n')
    assert read_cells(table) == [
        {"embedding": "fedncf(hidden=(8,4))", "seed": 1},
        {"embedding": "lora"},
    ]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.jsonl", '{"rounds": 3}\n[1]', "line 2: write"),
        ("a.jsonl", '{"round": 3}', "line 1: there is no setting 'round'"),
        ("a.jsonl", "", "has no cell"),
        ("a.csv", "rounds,seed\n3", "line 2: it has 1 fields and the header 2"),
        ("a.csv", "rounds\nx", "line 2: `rounds=x`"),
        ("a.csv", "rounds,rounds\n3,4", "has `rounds` twice"),
        ("a.csv", f'rounds\n"{"3" * 140_000}', "it is no CSV"),
        ("a.jsonl", '{"rounds": 3, "rounds": 4}', "line 1: the row has `rounds` twice"),
    ],
)
def test_a_bad_file_of_cells_names_its_line(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=f"--cells=.*{name}") as caught:
        read_cells(tmp_path / name)
    assert says in str(caught.value)
    with pytest.raises(InputError, match="No such file"):
        read_cells(tmp_path / "missing")


def test_the_product_of_axes():
    axes = read_axes(
        sweeps=["embedding=lora(rank=2)|hash", "seed=0:3"], zips=["rounds=30|40"]
    )
    cells = expand({"eval_every": 5}, axes)
    assert len(cells) == 2 * 3 * 2
    found = [
        (c.config.model.embedding, c.config.run.seed, c.config.run.rounds)
        for c in cells
    ]
    assert len(set(found)) == 12 and ("hash", 2, 40) in found
    assert {c.config.evaluation.eval_every for c in cells} == {5}
    assert len({cell.name for cell in cells}) == 12


def test_the_seeds_are_those_given_else_three():
    assert read_axes(vary=["rounds=30"])[0] == [{"seed": s} for s in (0, 1, 2)]
    assert read_axes(seeds=[7])[0] == [{"seed": 7}]
    assert len(read_axes(sweeps=["seed=0:2"])) == 1
    with pytest.raises(InputError, match="`seed` is varied twice"):
        expand({}, read_axes(seeds=[0], sweeps=["seed=0:2"]))


def test_an_argument_changes_the_spec_that_the_cell_has():
    """The rate of a suggested optimizer; the other arguments stay."""
    axes = [read_sweep("shared_server_optimizer.learning_rate=0.5|2")]
    (first, second) = expand({"embedding": "lora(rank=8)", "merge_every": 0}, axes)
    assert first.config.server.shared_server_optimizer == "sgd(learning_rate=0.5)"
    assert second.config.server.shared_server_optimizer == "sgd(learning_rate=2)"
    chain = {"upload": "clip_by_norm(max_norm=1.0), bfloat16"}
    assert apply(chain, {"upload.max_norm": 2.0})["upload"] == (
        "clip_by_norm(max_norm=2.0), bfloat16"
    )


@pytest.mark.parametrize(
    ("common", "sweep", "says"),
    [
        ({}, "embedding.size=3", "has no argument 'size': use lora(rank=4"),
        ({"embedding": "none", "full": "trained"}, "embedding.rank=3", "'none' has no"),
        ({}, "embedding.rank=0", "rank"),
        ({}, "rounds=50|0", "`rounds=0` must be"),
    ],
)
def test_a_cell_that_cannot_be_configured_is_one_line(common, sweep, says):
    with pytest.raises(InputError) as caught:
        expand({"warm_up_rounds": None, **common}, [read_sweep(sweep)])
    assert says in str(caught.value)


def test_the_same_cell_twice_is_refused():
    rows = [read_row("rounds=30"), read_row("rounds=30")]
    with pytest.raises(InputError, match="the grid has rounds=30 twice"):
        expand({}, [rows])


def test_names_are_safe_short_and_their_own():
    quoted = {"embedding": "rq(quantizer='kmeans')"}
    double = {"embedding": 'rq(quantizer="kmeans")'}
    axis = [quoted, double]
    first, second = (cell.name for cell in expand({}, [axis]))
    assert first == "embedding=rq(quantizer=kmeans)"
    assert second.startswith(f"{first}~") and len(second) == len(first) + 9
    # A name that is taken stays: other cells come and go.
    (again,) = (cell.name for cell in expand({}, [[double]], {second: double}))
    assert again == second
    long = slug({"client_optimizer": "adam(" + "x" * 500 + ")", "seed": 1})
    assert len(long) == 120 and long != slug({"client_optimizer": "adam(" + "x" * 501})
    assert slug({"data_dir": "../../etc"}) == "data_dir=..-..-etc"
    assert slug({"data_dir": "../../etc"}).count("/") == 0
