"""The result of a reader, and its ratings and prompts."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.rows import refuse_rows

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
