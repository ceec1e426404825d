"""The error for rows that cannot be used."""

import numpy as np
import polars as pl

from fedpeft_jax.core.errors import InputError


def refuse_rows(
    name: str,
    problem: str,
    bad: pl.Series,
    values: pl.Series,
    unit: str = "interactions",
    remedy: str = "correct or remove them",
) -> None:
    """Raises InputError with the first row (counted from 1) where `bad` is True.

    Args:
      name: the name of the file.
      problem: what is wrong with the rows, from the verb on.
      bad: bool[n], the rows that cannot be used.
      values: [n], the values that are wrong.
      unit: what a row is, in the plural.
      remedy: what the user can do.

    Example:
      >>> refuse_rows("f", "have no time", pl.Series([False]), pl.Series([3]))
    """
    if bad.any():
        row = int(np.argmax(bad.to_numpy()))
        value = values[row]
        shown = repr(value) if value is not None else "nothing"
        shown = shown if len(shown) <= 80 else shown[:80] + "..."
        raise InputError(
            f"{name}: {int(bad.sum())} {unit} {problem} (the first is "
            f"{unit.removesuffix('s')} {row + 1}: {shown}): {remedy}"
        )
