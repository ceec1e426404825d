"""The one exception a user is meant to read: it names the input and the remedy."""


class InputError(ValueError):
    """Bad input from outside: a file, a flag, or a combination of settings.

    The message is one line that names the offending input and says what to do about
    it. Command-line tools print it without a traceback and exit with code 2.

    Example:
      >>> raise InputError("rank must be at least 1, got 0: try 'lora(rank=4)'")
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: rank must be at least 1, got 0: try 'lora(rank=4)'
    """

    __module__ = "fedpeft_jax"  # Its public name, which tracebacks show.
