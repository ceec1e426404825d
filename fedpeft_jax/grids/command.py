"""Runs a whole grid: its ledger, its cells, its table."""

import contextlib
import pathlib
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fedpeft_jax.core.errors import InputError, StoppedError
from fedpeft_jax.experiment.finished import read_summary
from fedpeft_jax.experiment.folder_lock import FolderLock, is_free
from fedpeft_jax.experiment.stopping import Stop
from fedpeft_jax.grids.axes import Axis, read_cells, read_row, read_sweep, read_zip
from fedpeft_jax.grids.cells import Cell, expand
from fedpeft_jax.grids.execution import (
    SHARED,
    Context,
    Outcome,
    Watcher,
    check_stop,
)
from fedpeft_jax.grids.ledger import Ledger, plan_ledger, read_ledger
from fedpeft_jax.grids.plan import EXECUTORS, Plan
from fedpeft_jax.grids.progress import GridProgress
from fedpeft_jax.grids.table import write_table

SEEDS = (0, 1, 2)
"""The seeds of a grid that says nothing about them."""

_PATIENCE = 60.0  # seconds that processes of a killed grid have to end


class Grid(NamedTuple):
    """The cells of a command in the folder of a grid.

    Attributes:
      cells: the cells of the command.
      ledger: the ledger, with these and earlier cells.
    """

    cells: list[Cell]
    ledger: Ledger


def read_axes(
    *,
    vary: Sequence[str] = (),
    sweeps: Sequence[str] = (),
    zips: Sequence[str] = (),
    cells: str | None = None,
    seeds: Sequence[int] | None = None,
    default_rows: Sequence[str] = (),
) -> list[Axis]:
    """Returns the axes of a grid, the seeds first.

    Args:
      vary: rows of `setting=value`.
      sweeps: `address=one|another`, an axis each.
      zips: lists that are paired, one axis.
      cells: a file of explicit cells, further rows.
      seeds: the seeds; None for `SEEDS`, unless another axis has seeds.
      default_rows: the rows of a grid without any axis.

    Raises:
      InputError: for a text that cannot be read.
    """
    given = bool(vary or sweeps or zips or cells)
    rows = [read_row(text) for text in (vary if given else default_rows)]
    if cells is not None:
        rows += read_cells(pathlib.Path(cells))
    axes = [rows] if rows else []
    axes += [read_sweep(text) for text in sweeps]
    if zips:
        axes.append(read_zip(zips))
    has_seeds = any("seed" in changes for axis in axes for changes in axis)
    if seeds is None and not has_seeds:
        seeds = SEEDS
    return axes if seeds is None else [[{"seed": seed} for seed in seeds], *axes]


def read_grid(
    folder: pathlib.Path, common: Mapping[str, Any], axes: Sequence[Axis]
) -> Grid:
    """Returns the cells of a command and the ledger in its folder; writes nothing.

    Args:
      folder: the folder of the grid.
      common: the settings of all cells by name, without `out`.
      axes: the axes, as `read_axes` returns them.

    Raises:
      InputError: for settings that cannot be used, or that another grid in the folder
        does not have.
    """
    held = read_ledger(folder)
    names = {} if held is None else {k: e.changes for k, e in held.entries.items()}
    cells = expand(common, axes, names)
    return Grid(cells, plan_ledger(folder, common, cells, held))


def lock(out: pathlib.Path) -> FolderLock:
    """Makes the folder of a grid and locks it, so that no other grid writes to it.

    Args:
      out: the folder.

    Raises:
      InputError: if it cannot be made, or another grid is writing to it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        return FolderLock(out)
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; set `out`") from error


def unlock(out: pathlib.Path, held: FolderLock) -> None:
    """Removes the folder of a grid if nothing was written to it, and releases it.

    Args:
      out: the folder.
      held: its lock.
    """
    with contextlib.suppress(OSError):
        out.rmdir()
    held.release()


class _Recorded(Watcher):
    """Writes what happens to the ledger, and passes it to the progress."""

    def __init__(self, ledger: Ledger, progress: GridProgress) -> None:
        self._ledger, self._progress = ledger, progress

    def note(self, text: str) -> None:
        self._progress.note(text)

    def begin(self, cell: Cell) -> None:
        self._ledger.mark(cell.name, "running")
        self._progress.begin(cell)

    def rounds(self, cell: Cell, done: int, ndcg: float | None) -> None:
        self._progress.rounds(cell, done, ndcg)

    def end(self, cell: Cell, outcome: Outcome) -> None:
        self._ledger.mark(cell.name, *outcome)
        self._progress.end(cell, outcome)


def run_grid(grid: Grid, plan: Plan, stop: Stop) -> None:
    """Runs the cells that are left, and writes the ledger and the table.

    The caller holds the lock of the folder.

    Args:
      grid: the cells and the ledger.
      plan: which cells are left, and how they run.
      stop: returns the signal that asks the grid to stop, if there is one.

    Raises:
      InputError: if a file cannot be written.
      StoppedError: if a signal asked the grid to stop; everything is saved.
    """
    cells, ledger = grid
    left = {cell.name for cell in plan.todo}
    done: dict[str, float | None] = {}
    for cell in cells:
        if cell.name not in left:
            if ledger.entries[cell.name].status != "diverged":
                ledger.mark(cell.name, "finished")
            done[cell.name] = _best(ledger, cell)
    ledger.write()
    progress = GridProgress(cells, done)
    watcher = _Recorded(ledger, progress)
    context = Context(ledger.folder, watcher, stop, plan.workers, plan.at_once)
    try:
        _wait_for_processes(plan.todo, context)
        if plan.todo:
            EXECUTORS[plan.executor](plan.todo, context)
    except StoppedError:
        for name in left:
            if ledger.entries[name].status == "running":
                ledger.mark(name, "waiting")
        raise
    finally:
        progress.close()
    write_table(ledger.folder)
    if not any(entry.error for entry in ledger.entries.values()):
        shutil.rmtree(ledger.folder / SHARED, ignore_errors=True)
        shutil.rmtree(ledger.folder / ".logs", ignore_errors=True)


def _wait_for_processes(cells: Sequence[Cell], context: Context) -> None:
    """Waits for the processes of a grid that was killed.

    They end when they notice that the grid is gone, which may take some seconds on a
    busy machine. If one goes on for longer, its cell fails with an error that says so.

    Raises:
      StoppedError: if a signal asked the grid to stop.
    """

    def busy() -> list[str]:
        return [cell.name for cell in cells if not is_free(context.folder / cell.name)]

    last = time.monotonic() + _PATIENCE
    if names := busy():
        context.watcher.note(f"waiting for the process that runs {names[0]}")
    while names and time.monotonic() < last:
        check_stop(context.stop)
        time.sleep(0.05)
        names = busy()


def _best(ledger: Ledger, cell: Cell) -> float | None:
    """Returns the best validation NDCG@10 of a cell that has a result."""
    if ledger.entries[cell.name].status != "finished":
        return None
    best = read_summary(ledger.folder / cell.name).get("best_valid")
    return None if best is None else float(best["metrics"]["sampled"]["ndcg@10"])


def summaries_by_row(grid: Grid) -> dict[str, list[dict[str, Any] | None]]:
    """Returns the summaries of the cells, one list per row of settings.

    Args:
      grid: a grid that has run.

    Returns:
      By the text of the row, one summary per seed; None for a cell without one.
    """
    rows: dict[str, list[dict[str, Any] | None]] = {}
    for cell in grid.cells:
        finished = grid.ledger.entries[cell.name].status == "finished"
        summary = read_summary(grid.ledger.folder / cell.name) if finished else None
        rows.setdefault(cell.row, []).append(summary)
    return rows


def failures(grid: Grid) -> list[str]:
    """Returns one line per cell that diverged or failed."""
    entries = [(cell.name, grid.ledger.entries[cell.name]) for cell in grid.cells]
    return [
        f"{k}: {entry.status}: {entry.error}" for k, entry in entries if entry.error
    ]
