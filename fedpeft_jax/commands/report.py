"""Prints the results of runs that have finished, as one table.

    fedpeft-jax report --runs=runs/a,runs/b

The first run has its baselines and its costs below the table.
"""

import json
import pathlib
from typing import Any

from absl import flags

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import cli, print_summary
from fedpeft_jax.experiment.summary import FORMAT


def define_flags() -> None:
    """Defines the flags of the command."""
    flags.DEFINE_list("runs", [], "folders of runs that have finished")


def read_summary(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the summary of a run.

    Args:
      folder: the folder of the run.

    Raises:
      InputError: if the run has not finished, or the file is damaged.
    """
    path = folder / "summary.json"
    try:
        summary = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist: name the folder of a run that has finished"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): run it again") from None
    if not isinstance(summary, dict) or summary.get("format") != FORMAT:
        raise InputError(f"{path} is no summary of format {FORMAT}: run it again")
    return summary


def main(argv: list[str]) -> int:
    """Prints the table and returns the exit code."""

    def work() -> None:
        if not flags.FLAGS.runs:
            raise InputError("no runs are given: set --runs=DIR,DIR")
        first, *others = [read_summary(pathlib.Path(run)) for run in flags.FLAGS.runs]
        print_summary(first, others)

    return cli.exit_code(work, argv)
