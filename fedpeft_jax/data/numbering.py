"""Contiguous ids of users and items, the catalogue, and the text of its items."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.ids import is_missing

_MOST_BYTES = 8 << 30  # of the ids, which NumPy stores in fixed width
_MOST_SLOTS, _MOST_EMPTY = 1_000_000, 100


def number_ids(column: pl.Series, what: str = "item") -> tuple[np.ndarray, pl.Series]:
    """Returns the distinct original ids in order, [n], and the number of each row.

    Args:
      column: original ids, int64 or strings, one per row.
      what: ``'user'`` or ``'item'``, for errors.

    Returns:
      int64[n] or str[n], and the contiguous id of each row as an int64 series.

    Example:
      >>> ids, codes = number_ids(pl.Series(["10", "9", "10"]))
      >>> ids.tolist(), codes.to_list()
      ([9, 10], [1, 0, 1])
    """
    if column.dtype.is_integer():
        return _number_integers(column.to_numpy())
    distinct = column.unique()
    numbers = distinct.cast(pl.Int64, strict=False)
    # Only canonical spellings count as integers: '007' and '7' are two items.
    if (numbers.cast(pl.String) == distinct).fill_null(False).all():
        return _number_integers(column.cast(pl.Int64).to_numpy())
    distinct = distinct.sort()
    width = int(distinct.str.len_chars().max() or 0)  # type: ignore[arg-type]
    if 4 * width * len(distinct) > _MOST_BYTES:
        raise InputError(
            f"{len(distinct)} {what} ids of up to {width} characters need "
            f"{4 * width * len(distinct) >> 30} GiB of memory: shorten the longest ids"
        )
    ids = np.array(distinct.to_list(), dtype=np.str_)
    return ids, column.cast(pl.Enum(distinct)).to_physical().cast(pl.Int64)


def _number_integers(column: np.ndarray) -> tuple[np.ndarray, pl.Series]:
    low, high = int(column.min()), int(column.max())
    if high - low >= 4 * len(column):
        ids, codes = np.unique(column, return_inverse=True)
        return ids.astype(np.int64), pl.Series(codes.astype(np.int64))
    # A table of the whole range is faster than a sort of all rows.
    place = np.zeros(high - low + 1, np.int64)
    place[column - low] = 1
    ids = np.flatnonzero(place) + low
    place[ids - low] = np.arange(len(ids))
    return ids, pl.Series(place[column - low])


def number_items(
    name: str, items: pl.Series, listed: pl.DataFrame | None, catalogue: str
) -> tuple[np.ndarray, pl.Series]:
    """Returns the original item ids of a catalogue, and the number of each row.

    Args:
      name: the name of the data set, for errors.
      items: original item ids, one per interaction.
      listed: the result of `list_texts`; None if there is no text.
      catalogue: ``'interacted'``, the items with at least one interaction;
        ``'listed'``, those that are listed with a text too; ``'slots'``, every integer
        from 1 to the largest id of either.

    Returns:
      int64[I] or str[I], and the contiguous id of each row as an int64 series.

    Raises:
      InputError: for ``'slots'`` if an id is not an integer from 1.
    """
    if catalogue == "interacted" or (catalogue == "listed" and listed is None):
        return number_ids(items)
    every = items.cast(pl.String)
    if listed is not None:
        every = every.append(listed["item"])
    ids, codes = number_ids(every)
    if catalogue == "slots":
        if ids.dtype.kind != "i" or ids.min() < 1:
            raise InputError(
                f"{name}: `catalogue=slots` needs item ids that are integers from 1: "
                "use `catalogue=listed`"
            )
        if ids.max() > _MOST_SLOTS and ids.max() > _MOST_EMPTY * len(ids):
            raise InputError(
                f"{name}: `catalogue=slots` would make {ids.max()} items of "
                f"{len(ids)} ids, because the largest id is {ids.max()}: use "
                "`catalogue=listed` or `catalogue=interacted`"
            )
        codes = pl.Series(ids[codes.to_numpy()] - 1)
        ids = np.arange(1, ids.max() + 1)
    return ids, codes.head(len(items))


def list_texts(
    name: str, item_text: Mapping[Any, str | None] | pl.DataFrame | None
) -> tuple[pl.DataFrame | None, list[str]]:
    """Returns strings `item` and `text`, one row per listed item, and notes.

    The frame is None if there is no text. Rows without an id are left out.
    """
    if item_text is None:
        return None, []
    if isinstance(item_text, pl.DataFrame):
        if missing := {"item", "text"} - set(item_text.columns):
            raise InputError(
                f"{name}: the item text has no column {min(missing)!r} "
                f"(found: {', '.join(item_text.columns)}): rename the column"
            )
        listed = item_text.select(
            pl.col("item").cast(pl.String), pl.col("text").cast(pl.String)
        )
    else:
        listed = pl.DataFrame(
            {"item": [str(i) for i in item_text], "text": list(item_text.values())},
            schema={"item": pl.String, "text": pl.String},
        )
    nameless = is_missing(listed["item"])
    notes = [f"left out {nameless.sum()} item texts without an item id"]
    listed = listed.filter(~nameless)
    listed = listed.with_columns(pl.col("text").fill_null("").str.strip_chars())
    return listed, notes if nameless.any() else []


def align_texts(
    listed: pl.DataFrame | None, item_ids: np.ndarray, items: pl.Series
) -> tuple[tuple[str, ...] | None, list[str]]:
    """Returns prompts in the order of the catalogue, and notes on texts and items."""
    notes = []
    if unused := len(item_ids) - items.n_unique():
        notes.append(f"{unused} items of the catalogue have no interaction")
    if listed is None:
        return None, notes
    # An item that is listed twice keeps its first text that is not empty.
    filled = listed.filter(pl.col("text") != "")
    texts = filled.unique("item", keep="first", maintain_order=True)
    catalogue = pl.DataFrame({"item": [str(i) for i in item_ids.tolist()]})
    prompts = catalogue.join(texts, on="item", how="left", maintain_order="left")
    if repeated := len(filled) - len(texts):
        notes.append(f"{repeated} item texts are repeated (kept the first)")
    distinct = listed.unique("item")
    if unseen := len(distinct.join(catalogue, on="item", how="anti")):
        notes.append(
            f"left out {unseen} of {len(distinct)} listed items (no interaction)"
        )
    if empty := prompts["text"].null_count():
        notes.append(f"{empty} of {len(item_ids)} items have no text")
    if empty == len(item_ids):
        return None, notes
    return tuple(prompts["text"].fill_null("").to_list()), notes
