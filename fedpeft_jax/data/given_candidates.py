"""Candidates of sampled evaluation that were published, instead of drawn ones."""

import numpy as np
import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.dataset import Dataset
from fedpeft_jax.data.readers.candidate_lists import read_candidates_file
from fedpeft_jax.data.splits import Split


def given_candidates(
    dataset: Dataset, split: Split, file: str | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the candidates of a file, or those that `from_frame` was given.

    A user's candidates are those of all its rows. Lists may differ in length.

    Args:
      dataset: the data, with original ids.
      split: a split of ``dataset``, which determines the evaluated users.
      file: a file, see `read_candidates_file`; None for the table of ``dataset``.

    Returns:
      int32[E, C], row ``e`` for client ``split.evaluated[e]``: the candidates in the
      order in which they are listed, and then -1. And notes, one sentence each.

    Raises:
      InputError: if the file cannot be read; if it has a user or an item that is not in
        the data, or no candidates of an evaluated user; if the item of a row is not a
        test item of its user; or if a candidate is a positive of its user.

    Example:
      >>> from fedpeft_jax.data.loading import from_frame
      >>> from fedpeft_jax.data.splits import leave_one_out
      >>> rows = [(0, 5, 1), (0, 6, 2), (0, 7, 3), (1, 8, 1), (1, 9, 2)]
      >>> lists = {"user": [0], "item": [7], "negatives": [[9, 8]]}
      >>> data = from_frame(np.array(rows), candidates=lists)
      >>> given_candidates(data, leave_one_out(data))
      (array([[4, 3]], dtype=int32), ())
    """
    if file is not None:
        name, frame = file, read_candidates_file(file)
    else:
        name, table = "candidates", dataset.candidates
        assert table is not None
        frame = table
    clients = _numbers(name, "user", frame["user"], dataset.user_ids)
    held_out = _numbers(name, "item", frame["item"], dataset.item_ids)
    items = _numbers(name, "item", frame["candidate"], dataset.item_ids)

    def row(place: int) -> str:
        user, item, candidate = frame.row(place)
        return f"user {user!r}, item {item!r}, candidate {candidate!r}"

    notes = []
    evaluated = np.isin(clients, split.evaluated)
    if left_out := len(np.unique(clients[~evaluated])):
        notes.append(f"{name}: {left_out} users with candidates are not evaluated")
        frame = frame.filter(pl.Series(evaluated))
        clients, held_out, items = (x[evaluated] for x in (clients, held_out, items))
    missing = np.setdiff1d(split.evaluated, clients)
    if len(missing):
        user = dataset.user_ids[missing[0]].item()
        raise InputError(
            f"{name}: {len(missing)} of {len(split.evaluated)} evaluated users have no "
            f"candidates (the first is user {user!r}): add them, or use the data that "
            "the lists were made for"
        )
    pairs = clients * np.int64(dataset.num_items)
    tests = _pairs(split, "test")
    if (wrong := ~np.isin(pairs + held_out, tests)).any():
        raise InputError(
            f"{name}: {wrong.sum()} rows have an item that is not a test item of its "
            f"user (the first is {row(int(wrong.argmax()))}): use the split that the "
            "lists were made for, such as `split=given` with its files"
        )
    train = split.train.owners * np.int64(dataset.num_items) + split.train.values
    positives = np.concatenate([train, _pairs(split, "valid"), tests])
    if (wrong := np.isin(pairs + items, positives)).any():
        raise InputError(
            f"{name}: {wrong.sum()} candidates are training, validation or test items "
            f"of their user (the first is {row(int(wrong.argmax()))}): remove them"
        )
    _, first = np.unique(pairs + items, return_index=True)
    if repeated := len(items) - len(first):
        notes.append(f"{name}: dropped {repeated} repeated candidates")
    # By client, in the order of the rows.
    order = np.sort(first)
    order = order[np.argsort(clients[order], kind="stable")]
    rows = np.searchsorted(split.evaluated, clients[order])
    counts = np.bincount(rows, minlength=len(split.evaluated))
    result = np.full((len(counts), counts.max()), -1, np.int32)
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    result[rows, places] = items[order]
    return result, tuple(notes)


def describe_candidates(source: str, candidates: np.ndarray) -> dict[str, str | int]:
    """Returns what a summary says about given candidates.

    Args:
      source: the file, or ``'from_frame'``.
      candidates: int32[E, C], -1 is padding.

    Example:
      >>> describe_candidates("a.test.negative", np.array([[1, 2], [3, -1]]))
      {'given': 'a.test.negative', 'fewest': 1, 'most': 2}
    """
    counts = (candidates >= 0).sum(axis=1)
    return {"given": source, "fewest": int(counts.min()), "most": int(counts.max())}


def _pairs(split: Split, target: str) -> np.ndarray:
    held = split.held_out(target)
    result: np.ndarray = held.owners * np.int64(split.num_items) + held.values
    return result


def _numbers(name: str, what: str, column: pl.Series, ids: np.ndarray) -> np.ndarray:
    """Returns the contiguous ids int64[n] of original ids, which are strings."""
    known = pl.DataFrame({"id": [str(x) for x in ids.tolist()]}).with_row_index("place")
    rows = pl.DataFrame({"id": column}).join(
        known, on="id", how="left", maintain_order="left"
    )
    if (unknown := rows["place"].is_null()).any():
        number = rows.filter(unknown)["id"].n_unique()
        value = rows["id"][unknown.arg_max() or 0]
        remedy = "use the data that the lists were made for"
        if what == "item":
            remedy += ", or list the items with `catalogue=listed`"
        raise InputError(
            f"{name}: {number} {what}s are not in the data (the first is {what} "
            f"{value!r}): {remedy}"
        )
    return rows["place"].to_numpy().astype(np.int64)
