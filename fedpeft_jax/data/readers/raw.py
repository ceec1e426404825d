"""The result of a reader, and the types and checks of its columns."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from fedpeft_jax.core.errors import InputError

TRAIN, VALID, TEST, UNUSED = 0, 1, 2, 3
"""Parts of a split: the values of the column `part` and of `Dataset.parts`."""


class Raw(NamedTuple):
    """Interactions and item texts as they were read.

    Attributes:
      name: the name of the data set in output and messages.
      interactions: one row per interaction in file order, with columns `user` and
        `item` (integers or strings). There may be columns `time` (numbers or dates),
        `rating` (numbers) and `part` (TRAIN, VALID or TEST, for data that are already
        split).
      item_text: prompts by original item id, as a mapping or as a frame with columns
        `item` and `text`; None if there is no text.
      notes: what is unusual about the files, one sentence each.
    """

    name: str
    interactions: pl.DataFrame
    item_text: Mapping[Any, str | None] | pl.DataFrame | None = None
    notes: tuple[str, ...] = ()


def as_ids(name: str, what: str, column: pl.Series) -> pl.Series:
    """Returns ids as int64 or as strings.

    Whole numbers in a floating-point column become integers: pandas stores integers
    in this way if some are missing.

    Args:
      name: the name of the file, for errors.
      what: ``'user'`` or ``'item'``, for errors.
      column: integers, whole numbers or strings.

    Raises:
      InputError: with the first row without an id, or for ids of another type.

    Example:
      >>> as_ids("f", "user", pl.Series([3.0, 1.0])).to_list()
      [3, 1]
    """
    if column.dtype.is_float():
        whole = (column == column.floor()).fill_null(False) & (column.abs() < 2**53)
        refuse_rows(name, f"have no whole number as {what} id", ~whole, column)
        column = column.cast(pl.Int64)
    if column.dtype.is_integer():
        refuse_rows(name, f"have no {what} id", column.is_null(), column)
        try:
            return column.cast(pl.Int64)
        except pl.exceptions.InvalidOperationError:
            return column.cast(pl.String)
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise InputError(
            f"{name}: {what} ids are {column.dtype}: use integers or strings"
        )
    text = column.cast(pl.String)
    empty = text.is_null() | (text == "").fill_null(True)
    refuse_rows(name, f"have no {what} id", empty, text)
    return text


def as_times(name: str, column: pl.Series) -> pl.Series:
    """Returns times as int64, or as float64 if one is not a whole number.

    Dates become microseconds since 1970.

    Args:
      name: the name of the file, for errors.
      column: numbers, dates, or strings of either.

    Raises:
      InputError: with the first row whose time is missing, negative or not a time.

    Example:
      >>> as_times("f", pl.Series(["978300760.0", "12"])).to_list()
      [978300760, 12]
      >>> as_times("f", pl.Series(["2020-01-02", "1970-01-02"])).to_list()
      [1577923200000000, 86400000000]
    """
    if column.dtype == pl.String:
        column = _read_times(name, column)
    if column.dtype.is_temporal():
        column = column.cast(pl.Datetime("us")).to_physical()
    if not column.dtype.is_numeric():
        raise InputError(
            f"{name}: times are {column.dtype}, which has no time order: "
            "use numbers or dates"
        )
    missing = column.is_null()
    if column.dtype.is_float():
        missing = missing | column.is_nan().fill_null(True)
    refuse_rows(name, "have no time", missing, column)
    bad = column < 0
    if column.dtype.is_float():
        bad = bad | column.is_infinite()
    refuse_rows(name, "have a negative or infinite time", bad, column)
    if column.dtype.is_float():
        whole = bool((column == column.floor()).all()) and bool((column < 2**53).all())
        return column.cast(pl.Int64) if whole else column.cast(pl.Float64)
    return column.cast(pl.Int64)


def _read_times(name: str, text: pl.Series) -> pl.Series:
    stripped = text.str.strip_chars()
    missing = stripped.is_null() | (stripped == "").fill_null(True)
    refuse_rows(name, "have no time", missing, text)
    for dtype in (pl.Int64, pl.Float64):
        numbers = stripped.cast(dtype, strict=False)
        if not numbers.is_null().any():
            return numbers
    if numbers.is_null().all():
        try:
            dates = stripped.str.to_datetime(strict=False, time_unit="us")
        except pl.exceptions.ComputeError:  # a format that Polars does not support
            dates = pl.Series([None] * len(text), dtype=pl.Datetime("us"))
        if not dates.is_null().all():
            refuse_rows(name, "have no date, and others have", dates.is_null(), text)
            return dates
    refuse_rows(name, "have a time that is not a number", numbers.is_null(), text)
    return numbers


def as_ratings(name: str, column: pl.Series) -> pl.Series:
    """Returns ratings as float64, with null for a missing rating.

    Args:
      name: the name of the file, for errors.
      column: numbers, or strings of numbers.

    Raises:
      InputError: with the first row whose rating is not a number.

    Example:
      >>> as_ratings("f", pl.Series(["4.5", None])).to_list()
      [4.5, None]
    """
    numbers = column
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        column = text.set(text == "", None)
        numbers = column.cast(pl.Float64, strict=False)
    elif not column.dtype.is_numeric():
        raise InputError(f"{name}: ratings are {column.dtype}: use numbers")
    numbers = numbers.cast(pl.Float64)
    bad = ~numbers.is_finite().fill_null(False) & column.is_not_null()
    refuse_rows(name, "have a rating that is not a number", bad, column)
    return numbers


def refuse_rows(name: str, problem: str, bad: pl.Series, values: pl.Series) -> None:
    """Raises InputError with the first row (counted from 1) where `bad` is True."""
    if bad.any():
        row = int(np.argmax(bad.to_numpy()))
        value = values[row]
        shown = repr(value) if value is not None else "nothing"
        shown = shown if len(shown) <= 80 else shown[:80] + "..."
        raise InputError(
            f"{name}: {int(bad.sum())} interactions {problem} (the first is "
            f"interaction {row + 1}: {shown}): correct or remove them"
        )


def prompt(parts: Iterable[tuple[str, Any]]) -> str:
    """Writes the attributes of an item as one text, with one sentence per attribute.

    The values of a list are separated by commas. Empty attributes are left out.

    Args:
      parts: labels and values, which are strings or lists of strings.

    Example:
      >>> prompt([("title", "Up (2009)"), ("genres", ["Drama", "Comedy"]), ("x", "")])
      'Title: Up (2009). Genres: Drama, Comedy.'
    """
    texts = []
    for label, value in parts:
        if isinstance(value, list | tuple):
            value = ", ".join(str(part).strip() for part in value if part)
        value = " ".join(str(value or "").split())
        if value:
            label = label.replace("_", " ").strip()
            texts.append(f"{label[:1].upper()}{label[1:]}: {value.removesuffix('.')}.")
    return " ".join(texts)
