r"""Runs many settings with several seeds, and prints one table of the results.

    python experiments/grid.py --out=runs/grid --seeds=0,1,2 \
        --sweep='embedding=lora(rank=2)|lora(rank=4)' \
        --sweep='client_optimizer.learning_rate=0.003|0.01'

Every setting of `run.py` except `--seed` applies to all cells. --sweep lists the values
of a setting, or of one argument of its spec; several sweeps are multiplied. --zip lists
values that belong together, --vary is a row of settings, and --cells names a file of
rows. Without any of them, and without --full and --embedding, the rows are LoRA models
and their references. --dry_run prints the cells and stops. The same command again
continues the grid in --out (runs/grid by default). docs/grids.md explains the folder
and the table.
"""

import pathlib
import sys

from absl import flags

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import FIELDS, cli
from fedpeft_jax.experiment.stopping import stop_on_signals
from fedpeft_jax.grids import command
from fedpeft_jax.grids.addresses import parse_range
from fedpeft_jax.grids.plan import EXECUTORS, Plan, make_plan, plan_lines
from fedpeft_jax.grids.printing import print_table

REFERENCES = (
    "full=trained embedding=none",
    "full=frozen embedding=none",
    "full=frozen embedding=none full_init=random",
    "full=frozen embedding=lora(rank=4)",
    "full=frozen embedding=lora(rank=8)",
)
_MODEL = ("full", "embedding")


def define_flags() -> None:
    """Defines the flags of the command."""
    cli.define_flags(leave_out=("seed",))
    flags.DEFINE_list(
        "seeds", None, "seeds of every row, by default 0,1,2; 0:5 is 0 to 4"
    )
    flags.DEFINE_multi_string(
        "sweep",
        None,
        "setting=one|another, or setting.argument=first:end for integers; several "
        "sweeps are multiplied",
    )
    flags.DEFINE_multi_string(
        "zip", None, "setting=one|another; the lists of several --zip are paired"
    )
    cli.define_vary()
    flags.DEFINE_string(
        "cells", None, "file of rows: a JSON object on each line, or a .csv with a head"
    )
    flags.DEFINE_bool("dry_run", False, "print the cells and the plan, and stop")
    flags.DEFINE_enum(
        "executor",
        "auto",
        ["auto", "trial", *EXECUTORS],
        "how the cells run; trial times some rounds in every way and takes the fastest",
    )
    flags.DEFINE_integer(
        "workers", 0, "most processes, or cells at a time in one; 0 for the default"
    )
    flags.DEFINE_string(
        "grid_memory", None, "memory that the grid may use, e.g. 4GB: fewer cells run"
    )
    flags.DEFINE_enum(
        "target",
        "test",
        ["valid", "test"],
        "held-out items whose metrics are printed; choose settings by valid",
    )


def read_seeds(words: list[str] | None) -> list[int] | None:
    """Returns the seeds that a flag lists; None if it is not given.

    Raises:
      InputError: for words that are no integers, no seed, or a seed that occurs twice.
    """
    if words is None:
        return None
    if len(words) == 1 and (found := parse_range("seed", words[0])) is not None:
        return found
    try:
        seeds = [int(word) for word in words]
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds={','.join(words)}: write 0,1,2")
    return seeds


def grid_from_flags() -> command.Grid:
    """Returns the grid that the flags describe."""
    values = flags.FLAGS
    common = cli.settings_from_flags()
    out = pathlib.Path(common.pop("out") or "runs/grid")
    # A model that is named is the one that runs.
    named = any(common[name] != FIELDS[name].default for name in _MODEL)
    axes = command.read_axes(
        vary=values.vary or (),
        sweeps=values.sweep or (),
        zips=values.zip or (),
        cells=values.cells,
        seeds=read_seeds(values.seeds),
        default_rows=() if named else REFERENCES,
    )
    return command.read_grid(out, common, axes)


def plan_and_print(grid: command.Grid) -> Plan:
    """Returns the plan of a grid, which it prints."""
    plan = make_plan(
        *grid, flags.FLAGS.executor, flags.FLAGS.workers, flags.FLAGS.grid_memory
    )
    print("\n".join(plan_lines(*grid, plan)), flush=True)
    return plan


def main(argv: list[str]) -> int:
    """Runs the grid and returns the exit code."""
    failures: list[str] = []

    def work() -> None:
        grid = grid_from_flags()  # what is wrong leaves no folder behind
        if flags.FLAGS.dry_run:
            for cell in grid.cells:
                print(f"{grid.ledger.entries[cell.name].status}: {cell.name}")
            plan_and_print(grid)
            return
        out = grid.ledger.folder
        held = command.lock(out)
        try:
            with stop_on_signals(kill=True) as stop, cli.continued_by(out):
                grid = grid_from_flags()  # another grid may just have left the folder
                command.run_grid(grid, plan_and_print(grid), stop)
        finally:
            command.unlock(out, held)
        print_table(command.summaries_by_row(grid), flags.FLAGS.target)
        print(f"table: {out / 'grid.parquet'} and {out / 'grid.csv'}")
        failures.extend(command.failures(grid))

    code = cli.exit_code(work, argv)
    for line in failures:
        print(f"error: {cli.as_flags(line)}", file=sys.stderr)
    return 1 if failures and not code else code
