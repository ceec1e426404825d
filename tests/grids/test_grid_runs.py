"""Whole grids of small runs: ledger, table, divergence, damage, and continuation."""

import json
import shutil
import signal
import threading

import polars as pl
import pytest

from fedpeft_jax import InputError, load_grid
from fedpeft_jax.experiment import FIELDS
from fedpeft_jax.experiment.folder_lock import FolderLock
from fedpeft_jax.grids import command
from fedpeft_jax.grids.ledger import read_ledger
from fedpeft_jax.grids.table import MEASURED
from tests.small_runs import finished, results, run_cli, small_runs

RATES = "--sweep=client_optimizer.learning_rate=0.01|1e10"
NAMES = (
    "client_optimizer.learning_rate=0.01,seed=0",
    "client_optimizer.learning_rate=10000000000.0,seed=0",
)


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


def grid(out, *arguments, **settings):
    return run_cli(
        "--executor=one", "--seeds=0", *arguments, script="grid", out=out, **settings
    )


def table_bytes(out):
    """The table as CSV, without what a machine measures."""
    return pl.read_csv(out / "grid.csv").drop(MEASURED).write_csv()


@pytest.fixture(scope="module")
def rates(tmp_path_factory):
    """A grid with a cell that finishes, and one that diverges."""
    out = tmp_path_factory.mktemp("rates") / "grid"
    assert grid(out, RATES) == 1
    return out


def test_a_diverging_cell_leaves_its_neighbour_alone(rates, capsys):
    first, names = table_bytes(rates), list(NAMES)
    # Exactly the run that the same configuration is alone.
    assert results(rates / names[0]) == results(finished().path)
    # Nothing runs twice, and a cell that diverged would diverge again.
    marked = rates / names[0] / "summary.json"
    before = marked.stat().st_mtime_ns
    capsys.readouterr()
    assert grid(rates, RATES) == 1
    assert marked.stat().st_mtime_ns == before and table_bytes(rates) == first
    shown = capsys.readouterr()
    (line,) = [x for x in shown.err.splitlines() if x.startswith("error: ")]
    assert line.startswith(f"error: {names[1]}: diverged: ") and "learning rate" in line
    assert "row 1: 0 of 1 seeds have a result" in shown.out


def test_the_table_of_a_grid(rates):
    table = load_grid(rates)
    assert table["cell"].to_list() == list(NAMES)
    assert table["status"].to_list() == ["finished", "diverged"]
    assert set(FIELDS) <= set(table.columns)
    assert table["client_optimizer"].to_list()[0] == "adam(learning_rate=0.01)"
    assert table["rounds"].to_list() == [6, 6] and table["seed"].to_list() == [0, 0]
    summary = finished().summary
    tests = summary["metrics"]["test"]
    assert table["test_sampled_ndcg@10"].to_list() == [
        tests["sampled"]["ndcg@10"], None,
    ]  # fmt: skip
    assert table["test_full_mrr"][0] == tests["full"]["mrr"]
    assert table["total_bytes"][0] == summary["communication"]["total_bytes"]
    best = summary["best_valid"]["metrics"]["sampled"]["ndcg@10"]
    assert table["best_valid_ndcg@10"][0] == best and table["epsilon"][0] is None
    assert table.columns[-2:] == list(MEASURED)
    assert pl.read_parquet(rates / "grid.parquet").equals(table)


def test_cells_are_added_and_other_settings_refused(rates, capsys):
    before = load_grid(rates)
    assert grid(rates, RATES, local_epochs=3) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "local_epochs is 2 there and 3 here" in line and str(rates) in line
    assert grid(rates, "--sweep=embedding.rank=2|8", "--dry_run") == 0
    assert "2 are new" in capsys.readouterr().out
    # More rounds continue every cell.
    assert grid(rates, RATES, "--dry_run", rounds=8) == 0
    assert "0 have a result, 2 continue, 0 are new" in capsys.readouterr().out
    assert load_grid(rates).equals(before)


def test_a_damaged_cell_is_one_line_and_the_grid_goes_on(rates, tmp_path, capsys):
    out, good = tmp_path / "grid", table_bytes(rates)
    shutil.copytree(rates, out)
    damaged = out / NAMES[0] / "summary.json"
    kept = damaged.read_text()
    for content, says in [("{", "cannot be read"), ("{}", "is no summary of format")]:
        shutil.copy(rates / "grid.json", out)  # where the cell has finished
        damaged.write_text(content)
        table = load_grid(out)
        assert table["status"].to_list() == ["failed", "diverged"]
        assert says in table["error"][0] and table["total_bytes"][0] is None
        assert grid(out, RATES) == 1
        errors = capsys.readouterr().err.splitlines()
        (line,) = [x for x in errors if x.startswith(f"error: {NAMES[0]}: failed")]
        assert f"failed: {NAMES[0]}/summary.json {says}" in line
        assert "delete it and run the same command again" in line
        assert load_grid(out)["status"].to_list() == ["failed", "diverged"]
    damaged.write_text(kept)
    assert grid(out, RATES) == 1 and table_bytes(out) == good


def test_the_table_has_no_figures_of_what_is_gone_or_will_run_on(rates, tmp_path):
    out = tmp_path / "grid"
    shutil.copytree(rates, out)
    ledger = json.loads((out / "grid.json").read_text())
    ledger["cells"][0]["settings"]["rounds"] = 8  # as a command with more rounds writes
    ledger["cells"][0]["status"] = "waiting"
    (out / "grid.json").write_text(json.dumps(ledger))
    table = load_grid(out)
    assert table["status"].to_list() == ["waiting", "diverged"]
    assert table["rounds"][0] == 8 and table["test_sampled_ndcg@10"][0] is None
    shutil.copy(rates / "grid.json", out)
    shutil.rmtree(out / NAMES[0])
    assert load_grid(out)["status"].to_list() == ["waiting", "diverged"]


@pytest.mark.parametrize("patience", [60.0, 0.0])
def test_a_process_of_a_killed_grid_is_waited_for(
    rates, tmp_path, capsys, monkeypatch, patience
):
    """It ends after its grid; until then it holds the lock of its cell."""
    monkeypatch.setattr(command, "_PATIENCE", patience)
    out, good = tmp_path / "grid", table_bytes(rates)
    shutil.copytree(rates, out)
    (out / NAMES[0] / "summary.json").unlink()
    held = FolderLock(out / NAMES[0])
    ends = threading.Timer(1.0, held.release)
    if patience:
        ends.start()
    assert grid(out, RATES) == 1
    errors = capsys.readouterr().err
    assert f"waiting for the process that runs {NAMES[0]}" in errors
    assert ("another process is writing to" in errors) == (not patience)
    held.release()
    assert (table_bytes(out) == good) == bool(patience)


def test_a_signal_ends_the_wait_for_a_process_of_a_killed_grid(
    rates, tmp_path, capsys, monkeypatch
):
    out = tmp_path / "grid"
    shutil.copytree(rates, out)
    (out / NAMES[0] / "summary.json").unlink()
    looks = []

    def never_free(path):
        looks.append(path)
        if len(looks) == 2:
            signal.raise_signal(signal.SIGINT)
        return False

    monkeypatch.setattr(command, "is_free", never_free)
    assert grid(out, RATES) == 128 + signal.SIGINT and len(looks) < 5
    assert "SIGINT stopped the grid" in capsys.readouterr().err
    monkeypatch.undo()
    assert grid(out, RATES) == 1 and table_bytes(out) == table_bytes(rates)


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path, capsys):
    out = tmp_path / "grid"
    assert grid(out, "--dry_run", "--sweep=embedding=lora(rank=2)|hash") == 0
    assert capsys.readouterr().out.splitlines() == [
        "waiting: embedding=lora(rank=2),seed=0",
        "waiting: embedding=hash,seed=0",
        "2 cells, 0 have a result, 0 continue, 2 are new; 12 rounds at most, 2 "
        "programs",
        "cells run one after the other: --executor=one",
        f"folder: {out}",
    ]
    assert not out.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is damaged"),
        ('{"format": 1, "common": {}, "cells": [{"name": "a"}]}', "is damaged"),
        ('{"format": 9}', "it has another format"),
        ('{"format": 1, "common": [], "cells": []}', "is damaged"),
        ('{"format": 1, "common": {"no": 1}, "cells": []}', "of another version"),
    ],
)
def test_a_damaged_ledger_is_one_line(tmp_path, capsys, content, says):
    (tmp_path / "grid.json").write_text(content)
    assert grid(tmp_path) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line and "delete it" in line
    with pytest.raises(InputError, match="grid.json"):
        load_grid(tmp_path)


def test_a_folder_without_a_grid(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert grid(tmp_path / "file") == 2
    assert "grid.json cannot be read (Not a directory)" in capsys.readouterr().err
    with pytest.raises(InputError, match="name the folder of a grid"):
        load_grid(tmp_path)


def test_a_grid_that_is_unfinished_has_a_table(tmp_path):
    cells = [
        {"name": name, "changes": {"seed": i}, "settings": {"seed": i}, "status": s}
        for i, (name, s) in enumerate([("a", "waiting"), ("b", "running")])
    ]
    content = {"format": 1, "common": {}, "cells": cells}
    (tmp_path / "grid.json").write_text(json.dumps(content))
    table = load_grid(tmp_path)
    assert table["status"].to_list() == ["waiting", "running"]
    assert table["seed"].to_list() == [0, 1]
    assert table["test_sampled_hit_rate@10"].to_list() == [None, None]
    assert read_ledger(tmp_path).entries["a"].error is None
