"""Runs one experiment; `--help` lists every setting.

The same command again continues a run that was stopped in the folder --out.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

from absl import flags

from fedpeft_jax.experiment import (
    ConsoleReporter,
    RunConfig,
    RunFolder,
    cli,
    configure,
    print_summary,
)
from fedpeft_jax.experiment import run as run_experiment
from fedpeft_jax.experiment.stopping import Stop, stop_on_signals


def define_flags() -> None:
    """Defines the flags of the command."""
    cli.define_flags()
    flags.DEFINE_bool("print_config", False, "print the settings and stop")
    flags.DEFINE_bool("list", False, "print the registered plugins and stop")
    flags.DEFINE_bool(
        "references", False, "also run the trained and the frozen full table alone"
    )


def references(given: dict[str, Any], folder: RunFolder) -> Iterator[RunConfig]:
    """Yields configurations with a full table alone, once trained and once frozen.

    Args:
      given: the settings of the run by name.
      folder: the folder of the run, which holds those of its references.
    """
    config = configure(**given)
    for full in ("trained", "frozen"):
        if (config.model.full, config.model.embedding) != (full, "none"):
            changes = {"full": full, "embedding": "none", "warm_up_rounds": None}
            out = str(folder.path / "references" / full)
            yield cli.configure_row({**given, **changes, "out": out, "resume": "auto"})


def run_in(config: RunConfig, folder: RunFolder, stop: Stop) -> dict[str, Any]:
    """Runs one experiment in a folder, and returns its summary."""
    try:
        return run_experiment(
            config, folder=folder, callbacks=[ConsoleReporter()], stop=stop
        ).summary
    finally:
        folder.close()


def run_and_print(given: dict[str, Any], with_references: bool) -> None:
    """Runs the experiment and its references, and prints all of them."""
    config = configure(**given)
    folder = RunFolder(config.run.out, config.name, config.run.resume)
    with stop_on_signals(kill=True) as stop, cli.continued_by(folder.path):
        summary = run_in(config, folder, stop)
        others = []
        for other in references(given, folder) if with_references else ():
            name = f"{other.model.full} + {other.model.embedding}"
            print(f"\nreference: {name}", file=sys.stderr)
            target = RunFolder(other.run.out, other.name, other.run.resume)
            others.append(run_in(other, target, stop))
    print_summary(summary, others)
    print(f"results: {folder.path}")


def main(argv: list[str]) -> int:
    """Runs what the flags select and returns the exit code."""

    def work() -> None:
        given = cli.settings_from_flags()
        if flags.FLAGS.list:
            cli.print_plugins()
        elif flags.FLAGS.print_config:
            print(json.dumps(configure(**given).flat(), indent=2))
        else:
            run_and_print(given, flags.FLAGS.references)

    return cli.exit_code(work, argv)
