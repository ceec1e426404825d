"""Prints the results of runs that have finished, as one table.

    fedpeft-jax report --runs=runs/a,runs/b

The first run has its baselines and its costs below the table.
"""

import pathlib

from absl import flags

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import cli, print_summary
from fedpeft_jax.experiment.finished import read_summary


def define_flags() -> None:
    """Defines the flags of the command."""
    flags.DEFINE_list("runs", [], "folders of runs that have finished")


def main(argv: list[str]) -> int:
    """Prints the table and returns the exit code."""

    def work() -> None:
        if not flags.FLAGS.runs:
            raise InputError("no runs are given: set --runs=DIR,DIR")
        first, *others = [read_summary(pathlib.Path(run)) for run in flags.FLAGS.runs]
        print_summary(first, others)

    return cli.exit_code(work, argv)
