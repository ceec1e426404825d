"""The exceptions whose messages are written for the user."""

from typing import Any

_SHOWN = 120  # characters of a value in a message


class InputError(ValueError):
    """Bad input from outside: a file, a setting, or a combination of settings.

    The message is one line that names the input and the remedy. It writes a setting in
    backticks, `name=value`, which the command line rewrites as a flag. Command-line
    tools print the message without a traceback and exit with code 2.

    Example:
      >>> raise InputError("rank must be at least 1, got 0: try 'lora(rank=4)'")
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: rank must be at least 1, got 0: try 'lora(rank=4)'
    """

    __module__ = "fedpeft_jax"  # Tracebacks show the public name.

    def __init__(self, message: str) -> None:
        # The name of a file or a column may contain line breaks.
        super().__init__(" ".join(message.splitlines()))


class DivergedError(RuntimeError):
    """Training produced a non-finite update, or a loss that no healthy run has.

    If the run has a folder, it holds what was written before.
    """

    __module__ = "fedpeft_jax"


class StoppedError(Exception):
    """A signal asked a run to stop, and the run has saved its state.

    Args:
      reason: the signal and the round.
      signal: number of the signal.
      remedy: how to go on.
    """

    __module__ = "fedpeft_jax"

    def __init__(self, reason: str, signal: int, remedy: str = "") -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.reason = reason
        self.signal = signal


def brief(value: Any) -> str:
    """Returns a value as Python writes it, in one line and cut if it is long.

    Args:
      value: anything that a user gave.

    Example:
      >>> brief("a b"), brief(10**5000), len(brief("x" * 10**6))
      ("'a b'", 'an integer of more than 4000 digits', 123)
    """
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # Python does not write integers of so many digits
        return "an integer of more than 4000 digits"
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
