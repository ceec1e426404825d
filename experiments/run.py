"""Runs one experiment: `python experiments/run.py --help` lists every setting."""

import json
import sys
from collections.abc import Iterator
from typing import Any

from absl import flags

import fedpeft_jax
from fedpeft_jax import ConsoleReporter, RunConfig, RunFolder, configure, print_summary
from fedpeft_jax.experiment import cli

_PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "print the settings and stop")
_LIST = flags.DEFINE_bool("list", False, "print the registered plugins and stop")
_REFERENCES = flags.DEFINE_bool(
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
            yield cli.configure_row({**given, **changes, "out": out})


def run(config: RunConfig) -> tuple[dict[str, Any], RunFolder]:
    """Runs one experiment and returns its summary and its folder."""
    folder, reporter = RunFolder(config.run.out, config.name), ConsoleReporter()
    try:
        return fedpeft_jax.run(config, folder=folder, reporter=reporter).summary, folder
    finally:
        reporter.close()
        folder.close()


def run_and_print(given: dict[str, Any]) -> None:
    """Runs the experiment and its references, and prints all of them."""
    summary, folder = run(configure(**given))
    others = []
    for other in references(given, folder) if _REFERENCES.value else ():
        name = f"{other.model.full} + {other.model.embedding}"
        print(f"\nreference: {name}", file=sys.stderr)
        others.append(run(other)[0])
    print_summary(summary, others)
    print(f"results: {folder.path}")


def main(argv: list[str]) -> int:
    """Runs what the flags select and returns the exit code."""

    def work() -> None:
        given = cli.settings_from_flags()
        if _LIST.value:
            cli.print_plugins()
        elif _PRINT_CONFIG.value:
            print(json.dumps(configure(**given).flat(), indent=2))
        else:
            run_and_print(given)

    return cli.exit_code(work, argv)


if __name__ == "__main__":
    cli.define_flags()
    flags.adopt_module_key_flags(cli)  # for --help
    cli.start(main)
