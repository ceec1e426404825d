"""The exceptions whose messages are written for the user."""


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
    """Training produced a non-finite update.

    If the run has a folder, it holds all results up to the round before.
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
