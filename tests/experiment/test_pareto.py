"""The comparison of grids: rows, means, the front and labels, by hand."""

import itertools
import json
import statistics

import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.finished import FinishedRun, read_grids
from fedpeft_jax.experiment.pareto import compare, on_front
from fedpeft_jax.experiment.plot_labels import Box, choose_places
from fedpeft_jax.experiment.row_labels import family, row_labels
from tests.summaries import FULL, LORA, make_run, make_summary, write_grid


def test_the_front_by_hand():
    sizes = [10, 20, 20, 30, 40, 40]
    accuracies = [0.2, 0.3, 0.25, 0.3, 0.5, 0.5]
    # 20 B at 0.25 loses to 20 B at 0.3, 30 B at 0.3 to 20 B; equal rows both stay.
    assert on_front(sizes, accuracies) == [True, True, False, False, True, True]


def test_runs_that_differ_in_the_seed_alone_are_one_row():
    runs = [
        make_run(FULL, seed=0, size=100, ndcg=0.30, out="a", resume="must"),
        make_run(LORA, seed=0, size=20, ndcg=0.25),
        make_run(FULL, seed=1, size=104, ndcg=0.36, checkpoint_every=7, out="b"),
        make_run(LORA, seed=1, size=20, ndcg=0.27),
    ]
    compared = compare(runs)
    lora, full = compared.rows
    assert (lora.label, full.label) == ("LoRA 4", "Full")
    assert full.seeds == (0, 1) and full.total_bytes == 102
    mean, spread = full.figures["sampled", "ndcg@10"]
    assert mean == pytest.approx(0.33)
    assert spread == pytest.approx(statistics.stdev([0.30, 0.36]))
    assert lora.fraction == pytest.approx(20 / 102)
    assert (full.is_reference, lora.is_reference) == (True, False)
    assert full.on_front and lora.on_front
    assert compared.baselines["most_popular"]["sampled", "ndcg@10"].mean == 0.1
    assert not compared.notes


def test_one_seed_has_no_spread_and_the_last_row_by_bytes_is_dominated():
    runs = [make_run(FULL, ndcg=0.2, size=50), make_run(LORA, ndcg=0.3, size=9)]
    lora, full = compare(runs).rows
    assert lora.figures["sampled", "ndcg@10"] == (0.3, 0.0)
    assert (lora.on_front, full.on_front) == (True, False)


def test_quantised_full_is_no_reference():
    quantised = make_run({**FULL, "upload": "int8()", "download": "int8()"}, size=30)
    longer = make_run({**FULL, "rounds": 2000}, size=200)
    rows = compare([quantised, make_run(FULL, size=100), longer]).rows
    assert [row.is_reference for row in rows] == [False, False, True]
    assert [row.fraction for row in rows] == [0.15, 0.5, 1.0]
    assert rows[0].family == "Full"


def test_without_full_the_runs_say_what_it_would_send():
    compared = compare([make_run(LORA, size=20, full_size=80)])
    assert compared.rows[0].fraction == 0.25
    assert "no row is Full" in compared.notes[0]


def test_what_a_reader_has_to_know():
    runs = [
        make_run(FULL, seed=0, ndcg=0.3),
        make_run(FULL, seed=1, ndcg=0.3),
        make_run(FULL, seed=1, ndcg=0.9),
        make_run(LORA, seed=0),
    ]
    compared = compare(runs)
    (full,) = (row for row in compared.rows if row.is_reference)
    assert full.figures["sampled", "ndcg@10"].mean == pytest.approx(0.3)
    assert any("Full: 0, 1; LoRA 4: 0" in note for note in compared.notes)
    assert any("1 run repeats the settings" in note for note in compared.notes)


def test_several_held_out_items_show_the_recall():
    run = make_run(FULL)
    for metrics in (run.summary["metrics"], run.summary["baselines"]["most_popular"]):
        metrics["test"]["full"]["recall@10"] = 0.125
    found = compare([run])
    assert found.metrics[0] == ("sampled", "recall@10")
    assert found.rows[0].figures["full", "recall@10"].mean == 0.125


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dataset": {"name": "other", "users": 9}}, "dataset name"),
        ({"dataset": {"name": "toy", "users": 8}}, "dataset users is 9 and 8"),
        ({"num_candidates": 50}, "num_candidates is 100 and 50"),
    ],
)
def test_other_data_are_refused(change, says):
    with pytest.raises(InputError, match=says):
        compare([make_run(FULL), make_run(LORA, **change)])


def test_labels():
    merged = {**LORA, "merge_every": 50, "shared_server_optimizer": "sgd()"}
    rows = {
        "Full": FULL,
        "Full, bfloat16": {**FULL, "upload": "bfloat16", "download": "bfloat16"},
        "Full, down int8": {**FULL, "download": "int8()"},
        "Full, up top_k(fraction=0.1) then int8": {
            **FULL,
            "upload": "top_k(fraction=0.1), int8()",
        },
        "Frozen": {**FULL, "full": "frozen"},
        "LoRA 4, no merges": LORA,
        "LoRA 4": merged,
        "LoRA 8 (train_b=False)": {**merged, "embedding": "lora(rank=8,train_b=False)"},
        "LoRA 2, no table": {**LORA, "full": "none", "embedding": "lora(rank=2)"},
        "Full + Hash 512": {**FULL, "embedding": "hash"},
        "RQ 4x16": {**LORA, "embedding": "rq(codebook_size=16)"},
        "mine(size=3)": {**LORA, "embedding": "mine(size=3)"},
        "Full, proximal=0.5": {**FULL, "proximal": 0.5},
    }
    assert row_labels(list(rows.values())) == list(rows)


def test_a_default_that_depends_on_the_embedding_is_told_among_its_kind():
    slow = {**LORA, "server_optimizer": "sgd(learning_rate=1.0)"}
    assert row_labels([FULL, slow]) == ["Full", "LoRA 4"]
    assert row_labels([FULL, LORA, slow])[1:] == [
        "LoRA 4, server_optimizer=sgd()",
        "LoRA 4, server_optimizer=sgd(learning_rate=1.0)",
    ]
    every = [{**LORA, "merge_every": n} for n in (10, 20)]
    assert row_labels(every) == ["LoRA 4, merges every 10", "LoRA 4, merges every 20"]
    longer = [{**LORA, "rounds": 500}, LORA]
    assert row_labels(longer) == ["LoRA 4, 500 rounds", "LoRA 4, 1000 rounds"]


def test_rows_that_look_alike_are_told_apart():
    same = [LORA, {**LORA, "embedding": "lora(rank=4)"}]
    first, second = row_labels(same)
    assert first == "LoRA 4, embedding=lora"
    assert second == "LoRA 4, embedding=lora(rank=4)"


def test_families():
    merged = {**LORA, "merge_every": 50}
    assert family(FULL, [FULL]) == ("Full", "")
    assert family(LORA, [LORA]) == family(merged, [LORA, merged]) == ("LoRA", "")
    assert family(LORA, [LORA, merged]) == ("LoRA", "without merges")
    assert family({**LORA, "full": "none"}, [merged])[1] == "without table"
    assert family({**LORA, "embedding": "mine"}, []) == ("other", "")


def test_grids_are_read(tmp_path):
    grid = write_grid(tmp_path / "grid", [FULL, LORA], seeds=(0, 1))
    (grid / "row1-seed1" / "summary.json").unlink()
    (grid / "row1-seed1" / "config.json").write_text("{}")
    (grid / "log").write_text("")
    runs, missing = read_grids([grid])
    names = ["row0-seed0", "row0-seed1", "row1-seed0"]
    assert [run.folder.name for run in runs] == names
    assert missing == [(grid / "row1-seed1", "has not finished")]
    assert all(isinstance(run, FinishedRun) for run in runs)


def test_the_ledger_says_why_runs_are_missing(tmp_path):
    grid = write_grid(tmp_path / "grid", [FULL])
    for name in "bd":
        (grid / name).mkdir()
        (grid / name / "config.json").write_text("{}")
    cells = [("row0-seed0", "finished", None), ("a", "waiting", None)]
    cells += [("b", "diverged", "the loss is NaN"), ("c", "running", None)]
    cells += [("d", "waiting", None)]  # a signal stopped it
    entries = [{"name": n, "status": s, "error": e} for n, s, e in cells]
    (grid / "grid.json").write_text(json.dumps({"cells": entries}))
    assert read_grids([grid])[1] == [
        (grid / "a", "has not begun"),
        (grid / "b", "diverged (the loss is NaN)"),
        (grid / "c", "has not finished"),
        (grid / "d", "has not finished"),
    ]
    (grid / "grid.json").write_text("{")
    assert read_grids([grid])[1] == [(grid / x, "has not finished") for x in "bd"]


def without(path):
    def change(summary):
        *parents, last = path
        for name in parents:
            summary = summary[name]
        del summary[last]

    return change


@pytest.mark.parametrize(
    "change",
    [
        without(["config"]),
        without(["config", "embedding"]),
        without(["communication", "total_bytes"]),
        without(["metrics", "test", "full"]),
        without(["metrics", "test", "sampled", "ndcg@10"]),
        without(["baselines", "most_popular", "test"]),
        without(["dataset"]),
        lambda s: s["metrics"]["test"]["full"].update({"ndcg@10": float("nan")}),
        lambda s: s["communication"].update(total_bytes="12"),
        lambda s: s.update(config=[]),
    ],
)
def test_a_damaged_summary_is_named(tmp_path, change):
    grid = write_grid(tmp_path, [FULL, LORA])
    summary = make_summary(LORA)
    change(summary)
    (grid / "row1-seed0" / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(InputError, match=r"row1-seed0.summary\.json is damaged"):
        read_grids([grid])


def test_labels_of_points_have_places_of_their_own():
    points = [(100 + 12 * i, 100 + 6 * (i % 3)) for i in range(8)]
    inside = Box(0, 0, 300, 200)
    places = choose_places(points, [(60, 12)] * 8, range(8), inside)
    assert len(places) >= 7
    boxes = [box for box, _ in places.values()]
    assert all(inside.holds(box) for box in boxes)
    assert not any(a.overlap(b) for a, b in itertools.combinations(boxes, 2))
    assert not any(b.left < x < b.right and b.bottom < y < b.top
                   for b in boxes for x, y in points)  # fmt: skip


def test_a_label_without_a_free_place_is_left_out():
    places = choose_places([(5, 5)], [(60, 12)], [0], Box(0, 0, 40, 40))
    assert places == {}


def test_a_label_keeps_off_lines_if_it_can():
    line = Box(0, 45, 100, 55)
    (box, _) = choose_places([(50, 50)], [(20, 10)], [0], Box(0, 0, 100, 100), [line])[
        0
    ]
    assert box.overlap(line) < 20 * 10 / 4
