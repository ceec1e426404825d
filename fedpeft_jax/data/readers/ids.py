"""Checks of original ids: what stands for a missing value is no user and no item."""

import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.rows import refuse_rows

MISSING = (
    *("NULL", "Null", "null", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "None"),
    *(r"\N", "<NA>", "<null>"),
)
"""What programs write for a missing value; no id may be one of these."""

MOST_BYTES = 1000
"""The most bytes of one id. NumPy stores every id with the width of the longest one."""


def as_ids(
    name: str, what: str, column: pl.Series, unit: str = "interactions"
) -> pl.Series:
    """Returns ids as int64 or as strings.

    Whole numbers in a floating-point column become integers: pandas stores integers
    in this way if some are missing.

    Args:
      name: the name of the file, for errors.
      what: ``'user'`` or ``'item'``, for errors.
      column: integers, whole numbers or strings.
      unit: what a row is, for errors.

    Raises:
      InputError: with the first row without an id, or whose id stands for a missing
        value, has a control character or is too long; or for ids of another type.

    Example:
      >>> as_ids("f", "user", pl.Series([3.0, 1.0])).to_list()
      [3, 1]
      >>> as_ids("f", "user", pl.Series(["ann", "NULL"]))
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: f: 1 interactions have the user id 'NULL', which stands
      for a missing value (the first is row 2): remove them, or rename the id if it is
      a real one
    """
    if column.dtype.is_float():
        whole = (column == column.floor()).fill_null(False) & (column.abs() < 2**53)
        refuse_rows(name, f"have no whole number as {what} id", ~whole, column, unit)
        column = column.cast(pl.Int64)
    if column.dtype.is_integer():
        refuse_rows(name, f"have no {what} id", column.is_null(), column, unit)
        try:
            return column.cast(pl.Int64)
        except pl.exceptions.InvalidOperationError:
            return column.cast(pl.String)
    if column.dtype == pl.Null and len(column):
        refuse_rows(name, f"have no {what} id", column.is_null(), column, unit)
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise InputError(
            f"{name}: {what} ids are {column.dtype}: use integers or strings"
        )
    text = column.cast(pl.String)
    _check_strings(name, what, text, unit)
    return text


def is_missing(column: pl.Series) -> pl.Series:
    """Returns which ids are null, NaN, empty or blank.

    Example:
      >>> is_missing(pl.Series(["a", " ", "", None])).to_list()
      [False, True, True, True]
    """
    missing = column.is_null()
    if column.dtype.is_float():
        missing = missing | column.is_nan().fill_null(True)
    if column.dtype == pl.String:
        missing = missing | (column.str.strip_chars() == "").fill_null(True)
    return missing


def _check_strings(name: str, what: str, text: pl.Series, unit: str) -> None:
    blank_or_control = text.str.contains(r"^\s*$|\p{Cc}")
    if text.null_count() or blank_or_control.any():  # one search for both, on all rows
        refuse_rows(name, f"have no {what} id", is_missing(text), text, unit)
        problem = f"have a control character in the {what} id"
        refuse_rows(name, problem, blank_or_control, text, unit)
    found = text.is_in(MISSING)
    if found.any():
        listed = ", ".join(map(repr, text.filter(found).unique().sort().to_list()))
        raise InputError(
            f"{name}: {int(found.sum())} {unit} have the {what} id {listed}, which "
            f"stands for a missing value (the first is row {(found.arg_max() or 0) + 1}"
            "): remove them, or rename the id if it is a real one"
        )
    refuse_rows(
        name,
        f"have {what} ids of more than {MOST_BYTES} bytes",
        text.str.len_bytes() > MOST_BYTES,
        text,
        unit,
        f"shorten the ids, and check the {what} column",
    )
