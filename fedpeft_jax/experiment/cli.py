"""Shared parts of the command-line tools: flags for settings, and one-line errors."""

import contextlib
import io
import pathlib
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
from absl import app, flags, logging

from fedpeft_jax.core import specs
from fedpeft_jax.core.compilation_cache import use_compilation_cache
from fedpeft_jax.core.errors import DivergedError, InputError, StoppedError
from fedpeft_jax.core.settings import kind_of
from fedpeft_jax.data import DATASETS
from fedpeft_jax.evaluation import BASELINES
from fedpeft_jax.experiment.config import FIELDS, RunConfig, configure
from fedpeft_jax.experiment.plugins import REGISTRIES

_LONGEST = 2000  # characters of an error's line

_DEFINE: dict[type, Callable[..., object]] = {
    str: flags.DEFINE_string,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    bool: flags.DEFINE_bool,
}


def define_flags(leave_out: Sequence[str] = ()) -> None:
    """Defines one flag per setting; a flag that is defined already is left alone.

    Args:
      leave_out: names of settings that get no flag.
    """
    for name, field in FIELDS.items():
        if name in leave_out or name in flags.FLAGS:
            continue
        help_, choices = as_flags(field.metadata["help"]), field.metadata["choices"]
        if choices:
            help_ += f" ({', '.join(choices)})"
        _DEFINE[kind_of(field)](name, field.default, help_)


def define_vary() -> None:
    """Defines the flag of rows, unless another command of the process did."""
    if "vary" not in flags.FLAGS:
        flags.DEFINE_multi_string(
            "vary", None, "a row: setting=value, separated by spaces; may be repeated"
        )


def as_flags(message: str) -> str:
    """Returns a message in which settings are written as flags, as a shell reads them.

    Args:
      message: text with settings in backticks, `name` or `name=value`.

    Example:
      >>> as_flags("`rounds=0` must be at least 1, see `codebooks`")
      '--rounds=0 must be at least 1, see `codebooks`'
      >>> as_flags("try `server_optimizer=sgd(learning_rate=1.0)`")
      "try --server_optimizer='sgd(learning_rate=1.0)'"
    """

    def flag(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        if "(" in value and "'" not in value:
            value = f"='{value[1:]}'"
        return f"--{name}{value}" if name in FIELDS else match[0]

    return re.sub(r"`(\w+)((?:=[^`]*)?)`", flag, message)


def settings_from_flags() -> dict[str, typing.Any]:
    """Returns the value of every flag that is a setting."""
    return {name: flags.FLAGS[name].value for name in FIELDS if name in flags.FLAGS}


def configure_row(settings: Mapping[str, typing.Any]) -> RunConfig:
    """Returns the configuration of one of several runs that share settings.

    The file of text embeddings is left out if the run does not read text.

    Args:
      settings: settings by name.

    Raises:
      InputError: for settings that `configure` does not accept.
    """
    config = configure(**{**settings, "text_embeddings": None})
    return configure(**settings) if config.uses_text else config


def print_plugins() -> None:
    """Prints the names that each setting accepts, with their arguments and defaults."""
    for setting, names in (("dataset", DATASETS), ("baselines", BASELINES)):
        print(f"{setting}: {', '.join(names)}")
    for setting, registry in REGISTRIES.items():
        print(f"{setting}:")
        for name, factory in sorted(registry.items()):
            print(f"  {specs.signature(name, factory)}")


def parse_flags(argv: list[str]) -> list[str]:
    """Parses flags, or prints one line and exits with code 2 if that fails.

    Args:
      argv: the command line, program name included.

    Returns:
      The program name and the arguments that are not flags.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            rest: list[str] = flags.FLAGS(argv)
        # absl only warns and ignores the file.
        if "circular flagfile" not in said.getvalue():
            sys.stderr.write(said.getvalue())
            return rest
        line = "a --flagfile includes itself: remove the inner --flagfile"
    except UnicodeDecodeError:
        line = "a --flagfile is no text in UTF-8: write one --flag=value on each line"
    except (flags.Error, OSError, ValueError) as error:
        line = _one_line(str(error))
    print(f"error: {line} (--help lists the flags)", file=sys.stderr)
    sys.exit(2)


def _one_line(message: str) -> str:
    """Returns a message in one line, with its middle left out if it is very long."""
    # A byte of the command line that is no text has a character that cannot be printed.
    text = message.encode("utf-8", "backslashreplace").decode()
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:1000]} ... {line[-500:]}"


def exit_code(work: Callable[[], None], argv: Sequence[str] = ()) -> int:
    """Runs a function and returns the exit code of the process.

    An error that the user can correct is printed as one line, without a traceback.

    Args:
      work: the function.
      argv: the program name and the arguments that are not flags; arguments are errors.

    Returns:
      0 on success, 2 for bad input, 1 if training diverged or memory ran out, and 128
      plus the number of the signal if a signal stopped the run.
    """
    try:
        if len(argv) > 1:
            raise InputError(f"unexpected argument {argv[1]!r}: write --flag=value")
        work()
    except InputError as error:
        print(f"error: {_one_line(as_flags(str(error)))}", file=sys.stderr)
        return 2
    except DivergedError as error:
        print(f"error: {_one_line(as_flags(str(error)))}", file=sys.stderr)
        return 1
    except StoppedError as error:
        print(as_flags(str(error)), file=sys.stderr)
        return 128 + error.signal
    except jax.errors.JaxRuntimeError as error:
        line = str(error).partition("\n")[0]
        if "RESOURCE_EXHAUSTED" not in line:
            raise
        remedy = "lower --tile_rows, --client_chunk, --features or the embedding's size"
        print(f"error: {line}: {remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


@contextlib.contextmanager
def continued_by(out: pathlib.Path) -> Iterator[None]:
    """Lets the message of a run that a signal stops name the folder of the command.

    Args:
      out: the folder that the command writes, which may hold several runs.
    """
    try:
        yield
    except StoppedError as error:
        remedy = f"everything is saved: the same command with `out={out}` continues it"
        raise StoppedError(error.reason, error.signal, remedy) from None


def start(main: Callable[[list[str]], int]) -> None:
    """Parses flags, runs `main` and exits with the code that it returns.

    Args:
      main: receives the program name and the arguments that are not flags.
    """
    use_compilation_cache()
    logging.set_verbosity(logging.WARNING)  # Orbax logs every step at INFO.
    app.run(main, flags_parser=parse_flags)
