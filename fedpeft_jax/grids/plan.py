"""Plans a grid: which cells are left, and which executor runs them.

Another executor is a function as `execution.Executor` describes, with a name in
`EXECUTORS`; `choose_executor` says when it is used without being asked for.
"""

import functools
import json
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.finished import read_runs
from fedpeft_jax.experiment.identity import differences
from fedpeft_jax.experiment.machine import num_cores
from fedpeft_jax.grids.cells import Cell
from fedpeft_jax.grids.execution import Executor, one_after_the_other
from fedpeft_jax.grids.grid_memory import limit_cells
from fedpeft_jax.grids.ledger import Ledger
from fedpeft_jax.grids.processes import processes
from fedpeft_jax.grids.together import groups_of, run_groups
from fedpeft_jax.grids.trial import AT_ONCE, choose

EXECUTORS: dict[str, Executor] = {
    "one": one_after_the_other,
    "processes": processes,
    "threads": functools.partial(run_groups, how="threads"),
    "map": functools.partial(run_groups, how="map"),
    "vmap": functools.partial(run_groups, how="vmap"),
}
"""The executors by name."""

_WORTH_A_TRIAL = 20_000  # rounds of one program, of which a trial compiles three forms


class Plan(NamedTuple):
    """What a grid is about to do.

    Attributes:
      todo: the cells that are run or continued, in order.
      executor: the name of the executor.
      workers: the most processes.
      reason: why this executor was chosen.
      at_once: the most cells of one process that run at the same time.
    """

    todo: list[Cell]
    executor: str
    workers: int
    reason: str
    at_once: int = 1


def make_plan(
    cells: Sequence[Cell],
    ledger: Ledger,
    executor: str,
    workers: int,
    memory: str | None = None,
) -> Plan:
    """Returns the plan of a grid.

    Args:
      cells: all cells of the command.
      ledger: their ledger.
      executor: the name of an executor, `'auto'`, or `'trial'`, which times some rounds
        in every way.
      workers: the most processes, or cells at a time; 0 for one process per usable
        core, and eight cells at a time.
      memory: the bytes that the grid may use, as `--grid_memory` states them.

    Raises:
      InputError: for an executor or a number of processes that cannot be used, or too
        little memory for one cell.
    """
    if workers < 0:
        raise InputError(f"--workers={workers} must be at least 0")
    if executor == "processes" and (platform := jax.default_backend()) != "cpu":
        raise InputError(
            f"--executor=processes is for a CPU, and the device is a {platform}, which "
            "a run uses alone: use --executor=threads, map or vmap"
        )
    todo = [cell for cell in cells if not is_done(cell, ledger)]
    at_once = min(workers or AT_ONCE, max(len(todo), 1))
    workers = min(workers or num_cores(), max(len(todo), 1))
    fits = ""
    if memory is not None and todo:
        programs = [group[0].config for group in groups_of(todo)]
        workers, at_once, fits = limit_cells(programs, memory, workers, at_once)
    if executor in ("auto", "trial"):
        executor, reason = choose_executor(todo, workers, at_once, executor == "trial")
    else:
        reason = f"--executor={executor}"
    if executor != "processes":
        workers = 1
    at_once = at_once if executor in ("threads", "map", "vmap") else 1
    return Plan(todo, executor, workers, reason + fits, at_once)


def choose_executor(
    todo: Sequence[Cell], workers: int, at_once: int = AT_ONCE, trial: bool = False
) -> tuple[str, str]:
    """Returns the name of the executor for some cells, and the reason.

    A trial times some rounds of the largest group of cells with one program. It is made
    if it is asked for, or if the cells take so long that it is worth its time.

    Args:
      todo: the cells.
      workers: the most processes.
      at_once: the most cells of one process that run at the same time.
      trial: whether a trial is made in any case.
    """
    if len(todo) < 2:
        return "one", "there is no second cell to run beside it"
    platform, groups = jax.default_backend(), groups_of(todo)
    largest = max(groups, key=len)
    rounds = sum(cell.config.run.rounds for cell in largest)
    if len(largest) > 1 and (trial or rounds >= _WORTH_A_TRIAL or platform != "cpu"):
        configs = [cell.config for cell in largest]
        choice = choose(configs, at_once=at_once, workers=workers)
        return choice.how, choice.reason
    if platform != "cpu":
        return "one", f"the device is a {platform}, which a run uses alone"
    if (cores := num_cores()) < 2:
        return "one", "there is one core"
    some = f"{len(largest)} cells have one program, and there are {cores} cores"
    if at_once > 1 and len(largest) >= 2 * workers:
        return "threads", some
    if workers < 2:
        return "one", "one cell runs at a time with this memory or number of workers"
    return "processes", f"{len(todo)} cells and {cores} cores"


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
        read_runs([folder])
        held = json.loads((folder / "config.json").read_text())
        flat = cell.config.flat()
        if held["rounds"] != flat["rounds"]:
            return False
        return not differences(held, flat, places=True) and _has_model(folder)
    except (InputError, OSError, ValueError, KeyError, TypeError):
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
    programs = len(groups_of(plan.todo))
    compiled = "1 program" if programs == 1 else f"{programs} programs"
    counts = [f"{len(cells)} cells", f"{len(cells) - len(left)} have a result"]
    counts += [f"{started} continue", f"{len(left) - started} are new"]
    together = f"up to {plan.at_once} at a time in this process"
    how = {
        "one": "one after the other",
        "processes": f"in {plan.workers} processes",
        "threads": f"{together}, in threads",
        "map": f"{together}, in one program by lax.map",
        "vmap": f"{together}, in one program by vmap",
    }
    return [
        f"{', '.join(counts)}; {rounds} rounds at most, {compiled}",
        f"cells run {how.get(plan.executor, plan.executor)}: {plan.reason}",
        f"folder: {ledger.folder}",
    ]


def _has_model(folder: pathlib.Path) -> bool:
    return (folder / "checkpoints" / "final").is_dir()
