"""Plans a grid: which cells are left, and which executor runs them.

Another executor is a function as `execution.Executor` describes, with a name in
`EXECUTORS`; `choose_executor` says when it is used without being asked for.
"""

import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

import jax

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.identity import differences
from fedpeft_jax.grids.cells import Cell, program_of
from fedpeft_jax.grids.execution import Executor, one_after_the_other
from fedpeft_jax.grids.ledger import Ledger
from fedpeft_jax.grids.processes import processes

EXECUTORS: dict[str, Executor] = {
    "one": one_after_the_other,
    "processes": processes,
}
"""The executors by name."""


class Plan(NamedTuple):
    """What a grid is about to do.

    Attributes:
      todo: the cells that are run or continued, in order.
      executor: the name of the executor.
      workers: the most processes.
      reason: why this executor was chosen.
    """

    todo: list[Cell]
    executor: str
    workers: int
    reason: str


def make_plan(
    cells: Sequence[Cell], ledger: Ledger, executor: str, workers: int
) -> Plan:
    """Returns the plan of a grid.

    Args:
      cells: all cells of the command.
      ledger: their ledger.
      executor: the name of an executor, or `'auto'`.
      workers: the most processes; 0 for one per usable core.

    Raises:
      InputError: for an executor or a number of processes that cannot be used.
    """
    if workers < 0:
        raise InputError(f"--workers={workers} must be at least 0")
    if executor == "processes" and (platform := jax.default_backend()) != "cpu":
        raise InputError(
            f"--executor=processes is for a CPU, and the device is a {platform}, which "
            "a run uses alone: use --executor=one"
        )
    todo = [cell for cell in cells if not is_done(cell, ledger)]
    workers = min(workers or usable_cores(), max(len(todo), 1))
    if executor == "auto":
        executor, reason = choose_executor(todo, workers)
    else:
        reason = f"--executor={executor}"
    if executor != "processes":
        workers = 1
    return Plan(todo, executor, workers, reason)


def choose_executor(todo: Sequence[Cell], workers: int) -> tuple[str, str]:
    """Returns the name of the executor for some cells, and the reason.

    Args:
      todo: the cells.
      workers: the most processes.
    """
    if len(todo) < 2:
        return "one", "there is no second cell to run beside it"
    if workers < 2:
        return "one", "there is one core"
    if (platform := jax.default_backend()) != "cpu":
        return "one", f"the device is a {platform}, which a run uses alone"
    return "processes", f"{len(todo)} cells and {usable_cores()} cores"


def is_done(cell: Cell, ledger: Ledger) -> bool:
    """Returns whether a cell has a result: it has finished, or it diverged.

    Args:
      cell: the cell.
      ledger: the ledger of its grid.
    """
    if ledger.entries[cell.name].status == "diverged":
        return True
    folder = ledger.folder / cell.name
    try:
        json.loads((folder / "summary.json").read_text())
        held = json.loads((folder / "config.json").read_text())
        flat = cell.config.flat()
        if held["rounds"] != flat["rounds"]:
            return False
        return not differences(held, flat, places=True) and _has_model(folder)
    except (OSError, ValueError, KeyError, TypeError):
        return False  # the run itself says what is wrong with its folder


def plan_lines(cells: Sequence[Cell], ledger: Ledger, plan: Plan) -> list[str]:
    """Returns the plan as lines of text.

    Args:
      cells: all cells of the command.
      ledger: the ledger of the grid.
      plan: the plan.
    """
    left = {cell.name for cell in plan.todo}
    started = sum((ledger.folder / name / "config.json").exists() for name in left)
    rounds = sum(cell.config.run.rounds for cell in plan.todo)
    programs = len({program_of(cell.config) for cell in plan.todo})
    counts = [f"{len(cells)} cells", f"{len(cells) - len(left)} have a result"]
    counts += [f"{started} continue", f"{len(left) - started} are new"]
    how = {"one": "one after the other", "processes": f"in {plan.workers} processes"}
    return [
        f"{', '.join(counts)}; {rounds} rounds at most, {programs} programs",
        f"cells run {how.get(plan.executor, plan.executor)}: {plan.reason}",
        f"folder: {ledger.folder}",
    ]


def usable_cores() -> int:
    """Returns the number of cores that this process may use.

    Example:
      >>> usable_cores() > 0
      True
    """
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _has_model(folder: pathlib.Path) -> bool:
    return (folder / "checkpoints" / "final").is_dir()
