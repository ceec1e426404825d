"""Executors that run cells side by side in this process: threads, map and vmap.

Cells that differ in nothing that changes shapes (`program_key.py`) are compiled once,
and share data, text and pretraining. With threads, cells of different programs may run
side by side; with map and vmap, cells of other programs follow.
"""

import contextlib
import pathlib
import threading
from collections.abc import Sequence

from fedpeft_jax.core.errors import InputError, StoppedError
from fedpeft_jax.experiment import RunFolder, RunResult
from fedpeft_jax.grids.cells import Cell
from fedpeft_jax.grids.execution import (
    CellProgress,
    Context,
    Outcome,
    Rounds,
    check_stop,
    one_line,
    outcome_of,
    stopped_by,
)
from fedpeft_jax.grids.program_key import program_key
from fedpeft_jax.grids.shared_program import Remembered, run_together


def run_groups(cells: Sequence[Cell], context: Context, how: str) -> None:
    """Runs cells in this process, several at the same time.

    Args:
      cells: the cells.
      context: the folder, the watcher, the signal to stop, and the most cells at once.
      how: `'threads'`, `'map'` or `'vmap'`, see `run_together`.

    Raises:
      StoppedError: if a signal asked the grid to stop; its state is saved.
    """
    once = Remembered()
    for wave in waves_of(cells, context.at_once, mixed=how == "threads"):
        check_stop(context.stop)
        _run_some(wave, context, how, once)


def groups_of(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Returns the cells by program, in the order in which the programs occur.

    Args:
      cells: the cells.
    """
    groups: dict[object, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(program_key(cell.config), []).append(cell)
    return list(groups.values())


def waves_of(cells: Sequence[Cell], at_once: int, mixed: bool) -> list[list[Cell]]:
    """Returns the cells that run at the same time, wave by wave.

    Cells of one program are neighbours. A wave that may mix programs is full, so that
    no core waits for the last cell of a program.

    Args:
      cells: the cells.
      at_once: the most cells of a wave.
      mixed: whether a wave may have cells of several programs.
    """
    groups = groups_of(cells)
    if mixed:
        groups = [[cell for group in groups for cell in group]]
    return [
        group[first : first + at_once]
        for group in groups
        for first in range(0, len(group), at_once)
    ]


def _run_some(
    cells: Sequence[Cell], context: Context, how: str, once: Remembered
) -> None:
    """Runs some cells at the same time."""
    watcher, lock = context.watcher, threading.Lock()
    stopped: list[StoppedError] = []

    def follow(cell: Cell) -> Rounds:
        def rounds(done: int, ndcg: float | None) -> None:
            with lock:  # every cell has its own thread
                watcher.rounds(cell, done, ndcg)

        return rounds

    with contextlib.ExitStack() as at_end:
        opened: list[tuple[Cell, RunFolder]] = []
        for cell in cells:
            watcher.begin(cell)
            path = context.folder / cell.name
            try:
                folder = RunFolder(path, cell.config.name, cell.config.run.resume)
            except InputError as error:
                watcher.end(cell, Outcome("failed", one_line(error, path)))
                continue
            at_end.callback(folder.close)
            opened.append((cell, folder))

        def ended(place: int, result: RunResult | Exception) -> None:
            cell, folder = opened[place]
            if isinstance(result, StoppedError):
                stopped.append(result)
                return
            with lock:
                watcher.end(cell, _outcome(result, folder.path))

        run_together(
            [cell.config for cell, _ in opened],
            [folder for _, folder in opened],
            [[CellProgress(follow(cell))] for cell, _ in opened],
            context.stop,
            how,
            ended,
            once=once,
        )
    if stopped:
        raise stopped_by(stopped[0].signal)


def _outcome(result: RunResult | Exception, path: pathlib.Path) -> Outcome:
    """Returns how a cell ended."""
    if isinstance(result, RunResult):
        return Outcome("finished")
    return outcome_of(result, path)
