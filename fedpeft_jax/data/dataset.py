"""The data set: contiguous ids, and one history in time order per user.

Readers only parse. `build` decides everything that must not depend on the file format:
how ids are numbered, which of two repeated interactions counts, and which items the
catalogue has. Therefore the same data give the same data set, for every file format.
"""

import dataclasses

import numpy as np
import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.ragged import Ragged
from fedpeft_jax.data.filters import apply_filters
from fedpeft_jax.data.numbering import (
    align_texts,
    list_texts,
    number_ids,
    number_items,
)
from fedpeft_jax.data.readers.ids import as_ids
from fedpeft_jax.data.readers.raw import Raw
from fedpeft_jax.data.readers.times import as_times
from fedpeft_jax.data.settings import DataSettings

MIN_EVALUATED = 3
"""Number of distinct items that a user needs.

One is for the test, one for validation and one for training.
"""


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Implicit feedback: which user interacted with which items, in which order.

    Attributes:
      name: the name of the data set in output.
      user_ids: int64[U] or str[U], original user ids in contiguous order.
      item_ids: int64[I] or str[I], original item ids in contiguous order.
      items: int32 values [nnz] in U rows: the distinct items (contiguous ids) of each
        user in time order.
      item_text: a prompt for each item, ``''`` for an item without text; None if the
        data set has no text at all.
      notes: what was dropped or is unusual, one sentence each.
      places: int64[nnz], the place of each interaction in file order, among those that
        the filters keep; None if unknown.
      times: int64[nnz] or float64[nnz], the time of each interaction; None if unknown.
      parts: int8[nnz], TRAIN, VALID or TEST (``readers/raw.py``) for data that are
        already split; None for other data.
      candidates: columns `user`, `item` and `candidate`, the candidates of sampled
        evaluation under original ids; None if they are drawn.
    """

    name: str
    user_ids: np.ndarray
    item_ids: np.ndarray
    items: Ragged
    item_text: tuple[str, ...] | None
    notes: tuple[str, ...] = ()
    places: np.ndarray | None = None
    times: np.ndarray | None = None
    parts: np.ndarray | None = None
    candidates: pl.DataFrame | None = None

    @property
    def num_users(self) -> int:
        """U, the number of users."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """I, the size of the catalogue."""
        return len(self.item_ids)

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}: {self.num_users} users, {self.num_items} items, "
            f"{len(self.items.values)} interactions)"
        )


def build(raw: Raw, settings: DataSettings | None = None) -> Dataset:
    """Filters what a reader returned, numbers users and items, and orders histories.

    A pair of a user and an item that occurs more than once counts once. Equal times
    keep the order of the rows; without times, the rows are in time order. Contiguous
    ids follow numeric order if every original id is an integer (or an integer written
    as a string, without leading zeros), else byte order.

    Args:
      raw: interactions and item texts. Ids of items and of texts match whether they
        are integers or the same integers written as strings.
      settings: the filters `min_rating`, `min_interactions` and `k_core`, and
        `repeated_pairs` and `catalogue`; the defaults of `DataSettings` if None.

    Returns:
      The data set. Its notes are those of ``raw`` and then those of the steps here.

    Raises:
      InputError: if there are no rows, a column, an id or a time is missing, ids or
        times have a type without an order, a filter leaves nothing, or no user has at
        least 3 distinct items.

    Example:
      >>> rows = [("ann", 7, 3), ("ann", 10, 1), ("ann", 9, 2), ("ann", 7, 4)]
      >>> frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
      >>> data = build(Raw("tiny", frame, {7: "Title: Seven."}))
      >>> data.item_ids[data.items.row(0)].tolist(), data.item_text
      ([10, 9, 7], ('Title: Seven.', '', ''))
      >>> data.notes[0]
      'dropped 1 repeated pairs (kept the earliest)'
    """
    settings = settings or DataSettings()
    name = raw.name
    raw = apply_filters(_check_columns(raw), settings)
    listed, listed_notes = list_texts(name, raw.item_text)
    user_ids, users = number_ids(raw.interactions["user"], "user")
    item_ids, items = number_items(
        name, raw.interactions["item"], listed, settings.catalogue
    )
    frame = raw.interactions.select(
        users.alias("user"),
        items.alias("item"),
        pl.int_range(pl.len()).alias("place"),
        pl.col("^(time|part)$"),
    )
    kept = _distinct_in_time_order(frame, len(item_ids), settings.repeated_pairs)
    if "part" in frame.columns:
        _refuse_shared_pairs(name, frame)
    counts = np.bincount(kept["user"].to_numpy(), minlength=len(user_ids))
    if counts.max() < MIN_EVALUATED:
        raise InputError(
            f"{name}: none of the {len(user_ids)} users has {MIN_EVALUATED} distinct "
            f"items (the most is {counts.max()}), so no user can be evaluated: use "
            "interactions with longer histories, and check the user and item columns"
        )
    notes = list(raw.notes)
    if dropped := len(frame) - len(kept):
        notes.append(
            f"dropped {dropped} repeated pairs (kept the {settings.repeated_pairs})"
        )
    if short := int((counts < MIN_EVALUATED).sum()):
        notes.append(
            f"{short} users have fewer than {MIN_EVALUATED} distinct items "
            "(they train only)"
        )
    prompts, text_notes = align_texts(listed, item_ids, items)
    return Dataset(
        name=name,
        user_ids=user_ids,
        item_ids=item_ids,
        items=Ragged.from_counts(kept["item"].to_numpy().astype(np.int32), counts),
        item_text=prompts,
        notes=(*notes, *listed_notes, *text_notes),
        places=kept["place"].to_numpy().astype(np.int64),
        times=kept["time"].to_numpy() if "time" in kept.columns else None,
        parts=kept["part"].to_numpy() if "part" in kept.columns else None,
    )


def keep_users(dataset: Dataset, keep: np.ndarray, note: str) -> Dataset:
    """Returns the data set of the users of a mask, bool[U], with a note added.

    The catalogue stays the same.
    """
    rows = keep[dataset.items.owners]

    def of(column: np.ndarray | None) -> np.ndarray | None:
        return None if column is None else column[rows]

    return dataclasses.replace(
        dataset,
        user_ids=dataset.user_ids[keep],
        items=dataset.items.keep_rows(keep),
        places=of(dataset.places),
        times=of(dataset.times),
        parts=of(dataset.parts),
        notes=(*dataset.notes, note),
    )


def note_equal_times(dataset: Dataset) -> Dataset:
    """Returns the data set, with a note if all times are equal."""
    times = dataset.times
    if times is None or not (times == times[0]).all():
        return dataset
    note = (
        f"all {len(times)} times are equal, so the split follows the order of the "
        "rows: check the time column, or use split=random"
    )
    return dataclasses.replace(dataset, notes=(*dataset.notes, note))


def _check_columns(raw: Raw) -> Raw:
    """Returns the rows with ids and times in the types that `Raw` documents."""
    name, frame = raw.name, raw.interactions
    for column in ("user", "item"):
        if column not in frame.columns:
            raise InputError(
                f"{name}: the interactions have no column {column!r} "
                f"(found: {', '.join(frame.columns)}): rename the column"
            )
    if frame.is_empty():
        raise InputError(f"{name}: there are no interactions: check the input file")
    columns = {who: as_ids(name, who, frame[who]) for who in ("user", "item")}
    if "time" in frame.columns:
        columns["time"] = as_times(name, frame["time"])
    if "part" in frame.columns:
        columns["part"] = frame["part"].cast(pl.Int8)
    return raw._replace(interactions=frame.with_columns(**columns))


def _distinct_in_time_order(
    frame: pl.DataFrame, num_items: int, repeated_pairs: str
) -> pl.DataFrame:
    """Sorts rows by user and time, and keeps one row per pair of user and item."""
    # With the place last, equal times keep file order.
    order = [name for name in ("user", "time", "place") if name in frame.columns]
    pair = pl.col("user") * num_items + pl.col("item")
    first = repeated_pairs == "earliest"
    return frame.sort(order).filter(
        pair.is_first_distinct() if first else pair.is_last_distinct()
    )


def _refuse_shared_pairs(name: str, frame: pl.DataFrame) -> None:
    pairs = frame.select("user", "item", "part").unique()
    if shared := len(pairs) - pairs.select("user", "item").n_unique():
        raise InputError(
            f"{name}: {shared} pairs of a user and an item are in two of the training, "
            "validation and test files: leave them in one"
        )
