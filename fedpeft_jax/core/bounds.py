"""Bounds of numbers, for settings and for the arguments of plugins.

Python's numbers have no limits, and those of the compiled program do: a float32 beyond
3.4e38 is infinite, and an integer beyond 2^31 does not fit its type. Every number that
a user gives therefore has bounds, within which the program computes what was asked.
"""

import math
from typing import Any, NamedTuple

from fedpeft_jax.core.errors import InputError, brief

MOST_INT = 2**31 - 1
"""The largest int32."""

MOST_FLOAT = 1e30
"""A number whose product with most others is still a finite float32."""

_SMALLEST = 1e-30  # float32 rounds a number below 1.4e-45 to zero


class Bounds(NamedTuple):
    """An interval of numbers; None leaves a side open.

    Attributes:
      least: the least number.
      above: a number that a value must be above.
      most: the largest number.
      below: a number that a value must be below.

    Example:
      >>> bounds = Bounds(above=0, most=1)
      >>> bounds.words(), bounds.hold(1), bounds.hold(0)
      ('above 0 and at most 1', True, False)
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None

    def words(self) -> str:
        """Returns the bounds in words, e.g. `'at least 1 and at most 10'`."""
        named = (
            ("at least", self.least),
            ("above", self.above),
            ("at most", self.most),
            ("below", self.below),
        )
        return " and ".join(f"{word} {x}" for word, x in named if x is not None)

    def hold(self, value: float) -> bool:
        """Returns whether a number is within the bounds; NaN never is."""
        return (
            value == value
            and (self.least is None or value >= self.least)
            and (self.above is None or value > self.above)
            and (self.most is None or value <= self.most)
            and (self.below is None or value < self.below)
        )


def check_float32(given: str, value: float) -> None:
    """Checks that float32 neither rounds a number to zero nor overflows.

    Args:
      given: what the message calls the number.
      value: the number.

    Raises:
      InputError: if it is not finite, or not zero and smaller than 1e-30.

    Example:
      >>> check_float32("`share=1e-40`", 1e-40)
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: `share=1e-40` is rounded to zero in training: set at
      least 1e-30
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{given} must be a finite number")
    if value != 0 and abs(value) < _SMALLEST:
        raise InputError(
            f"{given} is rounded to zero in training: set at least {_SMALLEST}"
        )


def check_number(
    name: str, value: Any, bounds: Bounds, *, whole: bool = False, remedy: str = ""
) -> None:
    """Checks a number that is an argument of a plugin.

    Args:
      name: what the message calls it.
      value: the value; a boolean is not a number.
      bounds: its bounds.
      whole: whether it must be an integer.
      remedy: how to correct it, if the bounds do not say it all.

    Raises:
      InputError: if it is not a number, not finite or out of bounds.

    Example:
      >>> check_number("rank", 0, Bounds(least=1), whole=True, remedy="try 4")
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: rank must be an integer of at least 1, got 0: try 4
    """
    kinds = (int,) if whole else (int, float)
    # Not `isinstance`: a boolean is an instance of int.
    if not (type(value) in kinds and bounds.hold(value)):
        kind = "an integer of " if whole else ""
        hint = f": {remedy}" if remedy else ""
        raise InputError(
            f"{name} must be {kind}{bounds.words()}, got {brief(value)}{hint}"
        )
    check_float32(f"{name}={value}", value)


def check_sizes(name: str, value: Any, most: int, remedy: str) -> None:
    """Checks the sizes of hidden layers.

    Args:
      name: what the message calls them.
      value: the sizes, a tuple or a list.
      most: the largest size of a layer.
      remedy: how to write them.

    Raises:
      InputError: if it is anything else than 1 to 16 sizes of 1 to `most`.

    Example:
      >>> check_sizes("hidden", (64, 0), 8192, "write (64, 32)")
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: hidden=(64, 0) must be a tuple of layer sizes, 1 to 16
      numbers from 1 to 8192: write (64, 32)
    """
    sizes = value if isinstance(value, tuple | list) else ()
    good = all(type(size) is int and 1 <= size <= most for size in sizes)
    if not (good and 1 <= len(sizes) <= 16):
        raise InputError(
            f"{name}={brief(value)} must be a tuple of layer sizes, 1 to 16 numbers "
            f"from 1 to {most}: {remedy}"
        )
