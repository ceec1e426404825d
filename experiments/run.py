"""Runs one experiment: `python experiments/run.py --help` lists every setting."""

import dataclasses
import json
import os
import pathlib
import sys
import types
import typing

import jax
from absl import app, flags, logging

from fedpeft_jax import specs
from fedpeft_jax.config import REGISTRIES, RunConfig
from fedpeft_jax.errors import InputError
from fedpeft_jax.reporting import ConsoleReporter, print_summary
from fedpeft_jax.run_folder import RunFolder
from fedpeft_jax.training import DivergedError, Run

_PRINT_CONFIG = flags.DEFINE_bool("print_config", False, "print the settings and stop")
_LIST = flags.DEFINE_bool("list", False, "print the registered plugins and stop")
_DEFINE = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
}


def define_flags() -> None:
    """Defines one flag for each field of `RunConfig`."""
    hints = typing.get_type_hints(RunConfig)
    for field in dataclasses.fields(RunConfig):
        options = typing.get_args(hints[field.name]) or (hints[field.name],)
        kind = next(option for option in options if option is not types.NoneType)
        help_, choices = field.metadata["help"], field.metadata["choices"]
        if choices:
            help_ += f" ({', '.join(choices)})"
        _DEFINE[kind](field.name, field.default, help_)


def config_from_flags() -> RunConfig:
    """Returns the settings that the flags ask for."""
    names = [field.name for field in dataclasses.fields(RunConfig)]
    return RunConfig(**{name: flags.FLAGS[name].value for name in names})


def print_plugins() -> None:
    """Prints what each setting may name, with arguments and their defaults."""
    for setting, registry in REGISTRIES.items():
        print(f"{setting}:")
        for name, factory in sorted(registry.items()):
            print(f"  {specs.signature(name, factory)}")


def main(argv: list[str]) -> int:
    """Runs the experiment; returns the exit code."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells its life otherwise.
    reporter = folder = None
    try:
        if len(argv) > 1:
            raise InputError(f"unexpected argument {argv[1]!r}: write --flag=value")
        if _LIST.value:
            print_plugins()
            return 0
        config = config_from_flags()
        if _PRINT_CONFIG.value:
            resolved = {**dataclasses.asdict(config), "warm_up_rounds": config.warm_up}
            print(json.dumps(resolved, indent=2))
            return 0
        folder = RunFolder(config.out, config.name)
        reporter = ConsoleReporter()
        summary = Run(config, folder, reporter).execute()
        reporter.close()
        print_summary(summary)
        print(f"results: {folder.path}")
        return 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except DivergedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: metrics.jsonl holds every evaluation so far",
              file=sys.stderr)  # fmt: skip
        return 130
    finally:
        if reporter is not None:
            reporter.close()
        if folder is not None:
            folder.close()


def parse_flags(argv: list[str]) -> list[str]:
    """Parses flags; what absl cannot parse ends in one line and exit code 2."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, OSError) as error:
        line = " ".join(str(error).split())
        print(f"error: {line} (--help lists the flags)", file=sys.stderr)
        sys.exit(2)


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, unless JAX is told where."""
    if jax.config.jax_compilation_cache_dir is None:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(home) / "fedpeft_jax" / "jax"
        jax.config.update("jax_compilation_cache_dir", str(folder))


if __name__ == "__main__":
    define_flags()
    use_compilation_cache()
    app.run(main, flags_parser=parse_flags)
