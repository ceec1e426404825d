"""Executors: functions that run the cells of a grid, each in its own folder.

An executor tells the context's watcher how every cell ends, and raises StoppedError if
a signal asks it to stop. The one here runs one cell after the other in this process;
`processes.py` has another, and `plan.py` chooses between them.
"""

import contextlib
import os
import pathlib
import signal
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import jax

from fedpeft_jax.core.errors import DivergedError, InputError, StoppedError
from fedpeft_jax.experiment import Callback, RunConfig, RunFolder, run
from fedpeft_jax.experiment.stopping import Stop
from fedpeft_jax.grids.cells import Cell
from fedpeft_jax.grids.ledger import Status
from fedpeft_jax.grids.pretraining import (
    give_pretraining,
    pretraining_group,
    take_pretraining,
)


class Outcome(NamedTuple):
    """How a cell ended.

    Attributes:
      status: `'finished'`, `'diverged'` or `'failed'`.
      error: one line; None if it has finished.
    """

    status: Status
    error: str | None = None


class Watcher(Protocol):
    """Receives what happens in a grid (abstract)."""

    def note(self, text: str) -> None:
        """Receives a note, one line of text."""

    def begin(self, cell: Cell) -> None:
        """Receives a cell that starts or continues."""

    def rounds(self, cell: Cell, done: int, ndcg: float | None) -> None:
        """Receives a cell's rounds so far, and its latest validation NDCG@10."""

    def end(self, cell: Cell, outcome: Outcome) -> None:
        """Receives how a cell ended."""


class Context(NamedTuple):
    """What an executor needs besides the cells.

    Attributes:
      folder: the folder of the grid; the folder of a cell is the one of its name in it.
      watcher: receives what happens.
      stop: returns the signal that asks the grid to stop, if there is one.
      workers: the most processes.
      at_once: the most cells of one process that run at the same time.
    """

    folder: pathlib.Path
    watcher: Watcher
    stop: Stop
    workers: int = 1
    at_once: int = 1

    def shared(self, config: RunConfig) -> pathlib.Path | None:
        """Returns the folder of a cell's pretraining, None if it reads no text."""
        group = pretraining_group(config)
        return None if group is None else self.folder / SHARED / group


Executor = Callable[[Sequence[Cell], Context], None]
"""Runs cells, and tells the context's watcher how each of them ends."""

Rounds = Callable[[int, float | None], None]
"""Receives the rounds of a cell so far, and its latest validation NDCG@10."""

SHARED = ".shared"
"""The folder, in that of the grid, of what several cells read."""


class CellProgress(Callback):
    """Passes the progress of a cell's rounds on, and ignores everything else."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds

    def progress(self, task: str, done: int, total: int, **values: float) -> None:
        """Passes the rounds on."""
        if task == "rounds":
            self._rounds(done, values.get("valid NDCG@10"))


def one_after_the_other(cells: Sequence[Cell], context: Context) -> None:
    """Runs the cells in this process.

    Args:
      cells: the cells.
      context: the folder, the watcher and the signal to stop.

    Raises:
      StoppedError: if a signal asked the grid to stop; its state is saved.
    """
    watcher = context.watcher
    for cell in cells:
        check_stop(context.stop)

        def rounds(done: int, ndcg: float | None, cell: Cell = cell) -> None:
            watcher.rounds(cell, done, ndcg)

        watcher.begin(cell)
        path = context.folder / cell.name
        shared = context.shared(cell.config)
        watcher.end(cell, run_cell(cell.config, path, rounds, context.stop, shared))


def run_cell(
    config: RunConfig,
    path: pathlib.Path,
    rounds: Rounds,
    stop: Stop,
    shared: pathlib.Path | None = None,
) -> Outcome:
    """Runs one cell, and returns how it ended, whatever error it has.

    Args:
      config: its configuration.
      path: its folder.
      rounds: receives its progress.
      stop: returns the signal that asks it to stop, if there is one.
      shared: the folder of a pretraining that several cells read; it is written if it
        does not exist.

    Raises:
      StoppedError: if a signal asked the run to stop; its state is saved.
    """
    try:
        with contextlib.closing(RunFolder(path, config.name, config.run.resume)) as own:

            def after_rounds(done: int, ndcg: float | None) -> None:
                if shared is not None:
                    give_pretraining(own, shared)
                rounds(done, ndcg)

            if shared is not None:
                take_pretraining(own, config, shared)
            run(config, folder=own, callbacks=[CellProgress(after_rounds)], stop=stop)
        return Outcome("finished")
    except StoppedError:
        raise
    except Exception as error:
        return outcome_of(error, path)


def outcome_of(error: Exception, path: pathlib.Path) -> Outcome:
    """Returns how a cell ended that has an error.

    The traceback of an error that nobody expects is written to `error.txt`.

    Args:
      error: the error.
      path: the folder of the cell.
    """
    if isinstance(error, DivergedError):
        return Outcome("diverged", one_line(error, path))
    if isinstance(error, InputError):
        return Outcome("failed", one_line(error, path))
    if isinstance(error, jax.errors.JaxRuntimeError | MemoryError):
        return Outcome("failed", str(error).partition("\n")[0] or "memory ran out")
    # A mistake in the program ends this cell alone, and its place is kept.
    line = f"{type(error).__name__}: {one_line(error, path)[:500]}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / "error.txt").write_text("".join(traceback.format_exception(error)))
    except OSError:
        return Outcome("failed", line)
    return Outcome("failed", f"{line}; see {path.name}/error.txt")


def check_stop(stop: Stop) -> None:
    """Raises StoppedError if a signal asked the grid to stop."""
    if (number := stop()) is not None:
        raise stopped_by(number)


def stopped_by(number: int) -> StoppedError:
    """Returns the error of a grid that a signal stopped."""
    return StoppedError(f"{signal.Signals(number).name} stopped the grid", number)


def one_line(error: Exception, path: pathlib.Path) -> str:
    """Returns a message in one line, with paths that begin in the grid's folder.

    Args:
      error: the error.
      path: the folder of the cell.
    """
    return " ".join(str(error).split()).replace(f"{path.parent}{os.sep}", "")
