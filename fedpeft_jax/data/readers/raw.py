"""What a reader hands over: columns with the names that everything here goes by."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from fedpeft_jax.core.errors import InputError

TRAIN, VALID, TEST, UNUSED = 0, 1, 2, 3
"""Parts of a split: of the `part` column, and of `Dataset.parts`."""


class Raw(NamedTuple):
    """Interactions and item texts as they were read.

    Attributes:
      name: what the data set is called in output and errors.
      interactions: one row an interaction in file order, with columns `user` and `item`
        (integers or strings), `time` (numbers, may be missing), `rating` (numbers, may
        be missing) and, for data that come split, `part`.
      item_text: original item id -> prompt, as a mapping or as a frame with columns
        `item` and `text`; None if there is no text.
      notes: what is unusual about the files, one sentence each.
    """

    name: str
    interactions: pl.DataFrame
    item_text: Mapping[Any, str | None] | pl.DataFrame | None = None
    notes: tuple[str, ...] = ()


def as_ids(name: str, what: str, column: pl.Series) -> pl.Series:
    """Returns ids as int64 or as strings.

    Whole numbers in a floating-point column (as pandas has them beside missing ones)
    are integers.

    Raises:
      InputError: naming the first row without an id, or for ids of another kind.

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
            f"{name}: {what} ids are {column.dtype}: give integers or strings"
        )
    text = column.cast(pl.String)
    empty = text.is_null() | (text == "").fill_null(True)
    refuse_rows(name, f"have no {what} id", empty, text)
    return text


def as_times(name: str, column: pl.Series) -> pl.Series:
    """Returns times as int64, or as float64 where one is no whole number.

    Numbers may be written as text; dates become microseconds since 1970.

    Args:
      name: of the file, for errors.
      column: numbers, dates, or text.

    Raises:
      InputError: naming the first row whose time is missing, negative or no time.

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
            "give numbers or dates"
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
        except pl.exceptions.ComputeError:  # no format that it knows
            dates = pl.Series([None] * len(text), dtype=pl.Datetime("us"))
        if not dates.is_null().all():
            refuse_rows(name, "have no date where others have", dates.is_null(), text)
            return dates
    refuse_rows(name, "have a time that is no number", numbers.is_null(), text)
    return numbers


def as_ratings(name: str, column: pl.Series) -> pl.Series:
    """Returns ratings as float64, missing ones as null.

    Raises:
      InputError: naming the first row whose rating is no number.

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
        raise InputError(f"{name}: ratings are {column.dtype}: give numbers")
    numbers = numbers.cast(pl.Float64)
    bad = ~numbers.is_finite().fill_null(False) & column.is_not_null()
    refuse_rows(name, "have a rating that is no number", bad, column)
    return numbers


def refuse_rows(name: str, problem: str, bad: pl.Series, values: pl.Series) -> None:
    """Raises InputError naming the first row (from 1) where `bad` is True."""
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
    """Writes an item's attributes as one text: 'Label: value.' after 'Label: value.'.

    Lists are written with commas. What is empty is left out.

    Args:
      parts: labels and values, strings or lists of strings.

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
