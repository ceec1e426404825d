"""The data set every reader produces: contiguous ids and histories in time order.

Readers only parse. What must not depend on the file format (how ids are numbered, which
of two repeated interactions counts, which items make up the catalogue) is decided here
once, so that the same data prepares identically whatever file it came from.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl

from fedpeft_jax.errors import InputError

MIN_EVALUATED = 3
"""Distinct items a user needs for one test, one validation and one training item."""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Implicit feedback: who interacted with what, in which order.

    User ``u`` is row ``u`` of ``user_ids`` and her history is
    ``items[offsets[u]:offsets[u + 1]]``.

    Attributes:
      name: what the data set is called in output.
      user_ids: int64[U] or str[U], original user ids in contiguous order.
      item_ids: int64[I] or str[I], original item ids in contiguous order.
      offsets: int64[U + 1], where each user's history starts.
      items: int32[nnz], each user's distinct items (contiguous ids) in time order.
      item_text: a prompt for each item, ``''`` for an item without text; None if the
        data set has no text at all.
      notes: what was dropped or is unusual, one sentence each.
    """

    name: str
    user_ids: np.ndarray
    item_ids: np.ndarray
    offsets: np.ndarray
    items: np.ndarray
    item_text: tuple[str, ...] | None
    notes: tuple[str, ...] = ()

    @property
    def num_users(self) -> int:
        """U, the number of users."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """I, the size of the catalogue."""
        return len(self.item_ids)


def build_dataset(
    name: str,
    interactions: pl.DataFrame,
    item_text: Mapping[Any, str | None] | pl.DataFrame | None = None,
    *,
    notes: Iterable[str] = (),
) -> Dataset:
    """Numbers users and items, removes repeated pairs and orders histories by time.

    A pair that occurs more than once keeps its earliest time; equal times keep the
    order of the rows. Contiguous ids follow numeric order if every original id is an
    integer (or an integer written as a string, without leading zeros), else byte
    order. The catalogue is the items with at least one interaction.

    Args:
      name: what the data set is called in output and in errors.
      interactions: one row an interaction in file order, with columns ``user`` and
        ``item`` (integers or strings) and ``time`` (numbers or dates).
      item_text: original item id -> prompt, as a mapping or as a frame with columns
        ``item`` and ``text``; ids match whether written as integers or as strings.
      notes: the reader's own notes, put before those found here.

    Returns:
      The data set.

    Raises:
      InputError: no rows, a missing column, id or time, ids or times of a type that
        has no order, or no user with at least 3 distinct items.

    Example:
      >>> rows = [("ann", 7, 3), ("ann", 10, 1), ("ann", 9, 2), ("ann", 7, 4)]
      >>> frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
      >>> data = build_dataset("tiny", frame, {7: "Title: Seven."})
      >>> data.item_ids[data.items].tolist(), data.item_text
      ([10, 9, 7], ('Title: Seven.', '', ''))
      >>> data.notes[0]
      'dropped 1 repeated pairs (kept the earliest)'
    """
    _check_rows(name, interactions)
    user_ids, users = _number(name, "user", interactions["user"])
    item_ids, items = _number(name, "item", interactions["item"])
    frame = pl.DataFrame({"user": users, "item": items, "time": interactions["time"]})
    # A stable sort keeps file order among equal times, and 'first' is then 'earliest'.
    ordered = frame.sort("user", "time", maintain_order=True)
    kept = ordered.unique(["user", "item"], keep="first", maintain_order=True)
    counts = np.bincount(kept["user"].to_numpy(), minlength=len(user_ids))
    if counts.max() < MIN_EVALUATED:
        raise InputError(
            f"{name}: none of the {len(user_ids)} users has {MIN_EVALUATED} distinct "
            f"items (the most is {counts.max()}), so there is nobody to evaluate: give "
            "interactions with longer histories, and check the user and item columns"
        )
    found = list(notes)
    if len(kept) < len(frame):
        found.append(
            f"dropped {len(frame) - len(kept)} repeated pairs (kept the earliest)"
        )
    if short := int((counts < MIN_EVALUATED).sum()):
        found.append(
            f"{short} users have fewer than {MIN_EVALUATED} distinct items "
            "(they train only)"
        )
    prompts, text_notes = _align_text(name, item_text, item_ids)
    return Dataset(
        name=name,
        user_ids=user_ids,
        item_ids=item_ids,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        items=kept["item"].to_numpy().astype(np.int32),
        item_text=prompts,
        notes=(*found, *text_notes),
    )


def _check_rows(name: str, interactions: pl.DataFrame) -> None:
    """Raises InputError unless there are rows with users, items and times."""
    for column in ("user", "item", "time"):
        if column not in interactions.columns:
            raise InputError(
                f"{name}: the interactions have no column {column!r} "
                f"(found: {', '.join(interactions.columns)}): give it that name"
            )
    if interactions.is_empty():
        raise InputError(f"{name}: there are no interactions: check the input file")
    time = interactions["time"]
    if not (time.dtype.is_numeric() or time.dtype.is_temporal()):
        raise InputError(
            f"{name}: times are {time.dtype}, which has no time order: "
            "give numbers or dates"
        )
    missing = time.is_null()
    if time.dtype.is_float():
        missing = missing | time.is_nan().fill_null(True)
    _refuse_rows(name, "time", missing)


def _refuse_rows(name: str, what: str, missing: pl.Series) -> None:
    """Raises InputError naming the first row (from 1) where ``missing`` is True."""
    if missing.any():
        raise InputError(
            f"{name}: {missing.sum()} interactions have no {what} (the first is "
            f"interaction {missing.to_list().index(True) + 1}): complete or remove them"
        )


def _number(name: str, what: str, column: pl.Series) -> tuple[np.ndarray, pl.Series]:
    """Original ids in contiguous order [n], and int64 contiguous ids of the rows."""
    if column.dtype.is_integer():
        _refuse_rows(name, f"{what} id", column.is_null())
        ids, codes = np.unique(column.to_numpy(), return_inverse=True)
        return ids.astype(np.int64), pl.Series(codes.astype(np.int64))
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise InputError(
            f"{name}: {what} ids are {column.dtype}: give integers or strings"
        )
    text = column.cast(pl.String)
    _refuse_rows(name, f"{what} id", text.is_null() | (text == "").fill_null(True))
    distinct = text.unique()
    numbers = distinct.cast(pl.Int64, strict=False)
    # Only canonical spellings count as integers: '007' and '7' are two items.
    if (numbers.cast(pl.String) == distinct).fill_null(False).all():
        order = numbers.arg_sort()
        ids = numbers.gather(order).to_numpy()
    else:
        order = distinct.arg_sort()
        ids = np.array(distinct.gather(order).to_list(), dtype=np.str_)
    categories = pl.Enum(distinct.gather(order))
    return ids, text.cast(categories).to_physical().cast(pl.Int64)


def _align_text(
    name: str,
    item_text: Mapping[Any, str | None] | pl.DataFrame | None,
    item_ids: np.ndarray,
) -> tuple[tuple[str, ...] | None, list[str]]:
    """Prompts in the order of ``item_ids``, and notes about what did not match."""
    if item_text is None:
        return None, []
    if isinstance(item_text, pl.DataFrame):
        if missing := {"item", "text"} - set(item_text.columns):
            raise InputError(
                f"{name}: the item text has no column {min(missing)!r} "
                f"(found: {', '.join(item_text.columns)}): give it that name"
            )
        listed = item_text.select(
            pl.col("item").cast(pl.String), pl.col("text").cast(pl.String)
        )
    else:
        listed = pl.DataFrame(
            {"item": [str(i) for i in item_text], "text": list(item_text.values())},
            schema={"item": pl.String, "text": pl.String},
        )
    listed = listed.with_columns(pl.col("text").fill_null("").str.strip_chars())
    # An item listed twice keeps its first text that says something.
    filled = listed.filter(pl.col("text") != "")
    texts = filled.unique("item", keep="first", maintain_order=True)
    catalogue = pl.DataFrame({"item": [str(i) for i in item_ids.tolist()]})
    prompts = catalogue.join(texts, on="item", how="left", maintain_order="left")
    notes = []
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
