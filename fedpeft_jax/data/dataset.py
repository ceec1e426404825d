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

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.numbering import (
    align_texts,
    list_texts,
    number_ids,
    number_items,
)
from fedpeft_jax.data.readers.raw import as_ids, as_times

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
      places: int64[nnz], each interaction's row in the file; None if unknown.
      times: int64[nnz] or float64[nnz], when; None if unknown.
      parts: int8[nnz], TRAIN, VALID or TEST (``data/raw.py``) for data that come split.
    """

    name: str
    user_ids: np.ndarray
    item_ids: np.ndarray
    offsets: np.ndarray
    items: np.ndarray
    item_text: tuple[str, ...] | None
    notes: tuple[str, ...] = ()
    places: np.ndarray | None = None
    times: np.ndarray | None = None
    parts: np.ndarray | None = None

    @property
    def num_users(self) -> int:
        """U, the number of users."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """I, the size of the catalogue."""
        return len(self.item_ids)

    def __repr__(self) -> str:
        counts = f"{self.num_users} users, {self.num_items} items"
        return f"Dataset({self.name!r}: {counts}, {len(self.items)} interactions)"


def build_dataset(
    name: str,
    interactions: pl.DataFrame,
    item_text: Mapping[Any, str | None] | pl.DataFrame | None = None,
    *,
    notes: Iterable[str] = (),
    catalogue: str = "interacted",
    repeated_pairs: str = "earliest",
) -> Dataset:
    """Numbers users and items, removes repeated pairs and orders histories by time.

    A pair that occurs more than once counts once; equal times keep the order of the
    rows, and without times the rows are in time order. Contiguous ids
    follow numeric order if every original id is an integer (or an integer written as a
    string, without leading zeros), else byte order.

    Args:
      name: what the data set is called in output and in errors.
      interactions: one row an interaction in file order, with columns ``user`` and
        ``item`` (integers or strings), perhaps ``time`` (numbers or dates), and perhaps
        ``part`` (TRAIN, VALID or TEST of ``data/raw.py``).
      item_text: original item id -> prompt, as a mapping or as a frame with columns
        ``item`` and ``text``; ids match whether written as integers or as strings.
      notes: the reader's own notes, put before those found here.
      catalogue: ``'interacted'``, the items with at least one interaction;
        ``'listed'``, those with a text too; ``'slots'``, every integer from 1 to the
        largest id of either.
      repeated_pairs: whether such a pair keeps its ``'earliest'`` time or its
        ``'latest'``.

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
    for column in ("user", "item"):
        if column not in interactions.columns:
            raise InputError(
                f"{name}: the interactions have no column {column!r} "
                f"(found: {', '.join(interactions.columns)}): give it that name"
            )
    if interactions.is_empty():
        raise InputError(f"{name}: there are no interactions: check the input file")
    listed = list_texts(name, item_text)
    user_ids, users = number_ids(as_ids(name, "user", interactions["user"]))
    items = as_ids(name, "item", interactions["item"])
    item_ids, items = number_items(name, items, listed, catalogue)
    columns = {
        "user": users,
        "item": items,
        "place": pl.int_range(len(items), eager=True),
    }
    if "time" in interactions.columns:
        columns["time"] = as_times(name, interactions["time"])
    if "part" in interactions.columns:
        columns["part"] = interactions["part"].cast(pl.Int8)
    frame = pl.DataFrame(columns)
    order = ["user", "time", "place"] if "time" in columns else ["user", "place"]
    # With the place last, equal times keep file order.
    pair = pl.col("user") * len(item_ids) + pl.col("item")
    first = repeated_pairs == "earliest"
    kept = frame.sort(order).filter(
        pair.is_first_distinct() if first else pair.is_last_distinct()
    )
    if "part" in columns:
        _refuse_shared_pairs(name, frame)
    counts = np.bincount(kept["user"].to_numpy(), minlength=len(user_ids))
    if counts.max() < MIN_EVALUATED:
        raise InputError(
            f"{name}: none of the {len(user_ids)} users has {MIN_EVALUATED} distinct "
            f"items (the most is {counts.max()}), so there is nobody to evaluate: give "
            "interactions with longer histories, and check the user and item columns"
        )
    found = list(notes)
    if dropped := len(frame) - len(kept):
        found.append(f"dropped {dropped} repeated pairs (kept the {repeated_pairs})")
    if short := int((counts < MIN_EVALUATED).sum()):
        found.append(
            f"{short} users have fewer than {MIN_EVALUATED} distinct items "
            "(they train only)"
        )
    prompts, text_notes = align_texts(listed, item_ids, items)
    return Dataset(
        name=name,
        user_ids=user_ids,
        item_ids=item_ids,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        items=kept["item"].to_numpy().astype(np.int32),
        item_text=prompts,
        notes=(*found, *text_notes),
        places=kept["place"].to_numpy().astype(np.int64),
        times=kept["time"].to_numpy() if "time" in columns else None,
        parts=kept["part"].to_numpy() if "part" in columns else None,
    )


def keep_users(dataset: Dataset, keep: np.ndarray, note: str) -> Dataset:
    """Returns the data set of some users, bool[U], with a note that says so.

    The catalogue stays as it is.
    """
    rows = np.repeat(keep, np.diff(dataset.offsets))
    counts = np.diff(dataset.offsets)[keep]

    def of(column: np.ndarray | None) -> np.ndarray | None:
        return None if column is None else column[rows]

    return dataclasses.replace(
        dataset,
        user_ids=dataset.user_ids[keep],
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        items=dataset.items[rows],
        places=of(dataset.places),
        times=of(dataset.times),
        parts=of(dataset.parts),
        notes=(*dataset.notes, note),
    )


def _refuse_shared_pairs(name: str, frame: pl.DataFrame) -> None:
    pairs = frame.select("user", "item", "part").unique()
    if shared := len(pairs) - pairs.select("user", "item").n_unique():
        raise InputError(
            f"{name}: {shared} pairs of a user and an item are in two of the training, "
            "validation and test files: leave them in one"
        )
