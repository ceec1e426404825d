"""Grids whose cells run in one process: the same table, and what may go wrong."""

import polars as pl
import pytest

from fedpeft_jax import load_grid
from fedpeft_jax.experiment import configure
from fedpeft_jax.grids import plan
from fedpeft_jax.grids.cells import Cell
from fedpeft_jax.grids.plan import choose_executor
from fedpeft_jax.grids.table import MEASURED
from fedpeft_jax.grids.together import waves_of
from tests.small_runs import run_cli, small_runs

CELLS = ("--seeds=0", "--sweep=client_optimizer.learning_rate=0.01|0.02|1e10")


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


def grid(out, *arguments, **settings):
    code = run_cli(*arguments, script="grid", out=out, **settings)
    return code, load_grid(out).drop(MEASURED)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Cells one after the other; those with the last rate diverge."""
    return grid(tmp_path_factory.mktemp("alone") / "grid", *CELLS, "--executor=one")


@pytest.mark.parametrize(
    "how", ["threads", pytest.param("vmap", marks=pytest.mark.slow)]
)
def test_cells_together_make_the_table_of_cells_alone(alone, tmp_path, how):
    """Two at a time; a cell that diverges disturbs neither its neighbour nor others."""
    code, table = grid(tmp_path / "g", *CELLS, f"--executor={how}", "--workers=2")
    assert code == alone[0] == 1
    expected = alone[1]
    assert table["status"].to_list() == ["finished", "finished", "diverged"]
    assert table.columns == expected.columns
    for name in table.columns:
        if table[name].dtype == pl.Float64:
            assert table[name].to_list() == pytest.approx(
                expected[name].to_list(), abs=1e-5
            )
        elif how == "threads" or name != "error":
            assert table[name].to_list() == expected[name].to_list(), name


def test_waves_are_full_and_keep_cells_of_a_program_together():
    """Names of cells as program and seed: three of A, two of B."""
    wide = {"A": configure(features=8), "B": configure(features=16)}
    cells = [Cell(name, {}, wide[name[0]]) for name in ("A0", "B0", "A1", "B1", "A2")]

    def names(**options):
        return [[cell.name for cell in wave] for wave in waves_of(cells, **options)]

    assert names(at_once=2, mixed=True) == [["A0", "A1"], ["A2", "B0"], ["B1"]]
    assert names(at_once=2, mixed=False) == [["A0", "A1"], ["A2"], ["B0", "B1"]]


def test_a_folder_in_use_fails_alone(alone, tmp_path):
    del alone  # its programs are compiled
    out = tmp_path / "g"
    (out / "client_optimizer.learning_rate=0.01,seed=0").mkdir(parents=True)
    (out / "client_optimizer.learning_rate=0.01,seed=0" / "config.json").write_text("{")
    cells = ("--seeds=0", "--sweep=client_optimizer.learning_rate=0.01|0.02")
    code, table = grid(out, *cells, "--executor=threads")
    assert code == 1
    assert table["status"].to_list() == ["failed", "finished"]


def test_too_little_memory_is_one_line(tmp_path, capsys):
    given = (*CELLS, "--executor=threads", "--grid_memory=10MB")
    assert run_cli(*given, script="grid", out=tmp_path / "g") == 2
    assert "grid_memory` is" in capsys.readouterr().err.replace(
        "--grid_memory", "grid_memory`"
    )
    assert not (tmp_path / "g" / "grid.json").exists()


def test_one_cell_needs_no_choice():
    assert choose_executor([], 2) == ("one", "there is no second cell to run beside it")


def test_little_memory_for_processes_leaves_threads(monkeypatch):
    monkeypatch.setattr(plan, "num_cores", lambda: 2)
    cells = [Cell(str(seed), {}, configure(seed=seed)) for seed in range(8)]
    assert choose_executor(cells, workers=1, at_once=8)[0] == "threads"
    name, reason = choose_executor(cells, workers=1, at_once=1)
    assert name == "one" and "memory" in reason
