"""Runs one experiment: `python experiments/run.py --help` lists every setting."""

import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from absl import flags

from fedpeft_jax.core import specs
from fedpeft_jax.data import DATASETS
from fedpeft_jax.evaluation.baselines import BASELINES
from fedpeft_jax.experiment import cli
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.plugins import REGISTRIES
from fedpeft_jax.experiment.reporting import ConsoleReporter, print_summary
from fedpeft_jax.experiment.run_folder import RunFolder
from fedpeft_jax.experiment.training import Run

_PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "print the settings and stop")
_LIST = flags.DEFINE_bool("list", False, "print the registered plugins and stop")
_REFERENCES = flags.DEFINE_bool(
    "references", False, "also run the trained and the frozen table alone, beside it"
)


def print_plugins() -> None:
    """Prints what each setting may name, with arguments and their defaults."""
    for setting, names in (("dataset", DATASETS), ("baselines", BASELINES)):
        print(f"{setting}: {', '.join(names)}")
    for setting, registry in REGISTRIES.items():
        print(f"{setting}:")
        for name, factory in sorted(registry.items()):
            print(f"  {specs.signature(name, factory)}")


def print_config(config: RunConfig) -> None:
    """Prints the settings, with those that were derived from others."""
    print(json.dumps(config.settings(), indent=2))


def references(config: RunConfig, folder: pathlib.Path) -> Iterator[RunConfig]:
    """The same run without a compressed part: the table trained, and frozen."""
    for full in ("trained", "frozen"):
        if (config.full, config.embedding) != (full, "none"):
            changes = {"full": full, "embedding": "none", "warm_up_rounds": None}
            out = str(folder / "references" / full)
            yield cli.config_beside_others({**vars(config), **changes, "out": out})


def run(config: RunConfig) -> tuple[dict[str, Any], pathlib.Path]:
    """Runs one experiment; returns its summary and its folder."""
    folder, reporter = RunFolder(config.out, config.name), ConsoleReporter()
    try:
        return Run(config, folder, reporter).execute(), folder.path
    finally:
        reporter.close()
        folder.close()


def run_and_print(config: RunConfig) -> None:
    """Runs the experiment, and what shall stand beside it, and prints all of it."""
    summary, folder = run(config)
    others = []
    for other in references(config, folder) if _REFERENCES.value else ():
        print(f"\nbeside it: {other.full} + {other.embedding}", file=sys.stderr)
        others.append(run(other)[0])
    print_summary(summary, others)
    print(f"results: {folder}")


def main(argv: list[str]) -> int:
    """Does what the flags ask for; returns the exit code."""

    def work() -> None:
        if _LIST.value:
            return print_plugins()
        config = RunConfig(**cli.settings_from_flags())
        return (print_config if _PRINT_CONFIG.value else run_and_print)(config)

    return cli.exit_code(work, argv)


if __name__ == "__main__":
    cli.define_flags()
    flags.adopt_module_key_flags(cli)  # for --help
    cli.start(main)
