"""What the command-line tools share: flags from `RunConfig`, and errors in one line."""

import dataclasses
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence

import jax
from absl import app, flags, logging

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.user_cache import user_cache
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.training import DivergedError

_DEFINE: dict[type, Callable[..., object]] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}


def define_flags(leave_out: Sequence[str] = ()) -> None:
    """Defines one flag for each field of `RunConfig`."""
    hints = typing.get_type_hints(RunConfig)
    for field in dataclasses.fields(RunConfig):
        if field.name in leave_out:
            continue
        options = typing.get_args(hints[field.name]) or (hints[field.name],)
        kind = next(option for option in options if option is not types.NoneType)
        help_, choices = field.metadata["help"], field.metadata["choices"]
        if choices:
            help_ += f" ({', '.join(choices)})"
        _DEFINE[kind](field.name, field.default, help_)


def settings_from_flags() -> dict[str, typing.Any]:
    """Returns the value of every flag that is a field of `RunConfig`."""
    names = [field.name for field in dataclasses.fields(RunConfig)]
    return {name: flags.FLAGS[name].value for name in names if name in flags.FLAGS}


def config_beside_others(settings: Mapping[str, typing.Any]) -> RunConfig:
    """Builds one of several runs that share settings.

    The file of text embeddings is for those of them that read it.
    """
    config = RunConfig(**{**settings, "text_embeddings": None})
    return RunConfig(**settings) if config.uses_text else config


def parse_flags(argv: list[str]) -> list[str]:
    """Parses flags; what absl cannot parse ends in one line and exit code 2."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, OSError) as error:
        line = " ".join(str(error).split())
        print(f"error: {line} (--help lists the flags)", file=sys.stderr)
        sys.exit(2)


def exit_code(work: Callable[[], None], argv: Sequence[str] = ()) -> int:
    """Runs the work; what a user can mend ends in one line, never a traceback.

    Returns:
      0; 2 for bad input; 1 if training diverged or memory ran out; 130 if
      interrupted.
    """
    try:
        if len(argv) > 1:
            raise InputError(f"unexpected argument {argv[1]!r}: write --flag=value")
        work()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except DivergedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except jax.errors.JaxRuntimeError as error:
        line = str(error).partition("\n")[0]
        if "RESOURCE_EXHAUSTED" not in line:
            raise
        remedy = "lower --tile_rows, --client_chunk, --features or the embedding's size"
        print(f"error: {line}: {remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "interrupted: the run's folder keeps every evaluation so far",
            file=sys.stderr,
        )
        return 130
    return 0


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, unless JAX is told where."""
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        folder = user_cache("jax")
        if folder is not None:
            jax.config.update("jax_compilation_cache_dir", str(folder))


def start(main: Callable[[list[str]], int]) -> None:
    """Parses flags and exits with what `main` returns."""
    use_compilation_cache()
    logging.set_verbosity(logging.WARNING)  # Orbax tells its life otherwise.
    app.run(main, flags_parser=parse_flags)
