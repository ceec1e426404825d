"""Which interactions train, validate and test: the latest of each user are held out.

Leave-one-out by time, after He et al., "Neural Collaborative Filtering" (WWW 2017):
the last item of a history is the test item, the one before it the validation item.
"""

import dataclasses

import numpy as np

from fedpeft_jax.data.dataset import MIN_EVALUATED, Dataset
from fedpeft_jax.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Training, validation and test items of every client (client = user).

    Attributes:
      name: how the split was made, such as ``'time'``.
      num_items: I, the size of the catalogue.
      offsets: int64[U + 1], where each client's training items start in ``train``.
      train: int32[nnz], training items, ascending within a client.
      valid: int32[U], the validation item, -1 for a client that trains only.
      test: int32[U], the test item, -1 for a client that trains only.
    """

    name: str
    num_items: int
    offsets: np.ndarray
    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    @property
    def num_clients(self) -> int:
        """U, the number of clients."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> np.ndarray:
        """int64[U], each client's number of training items: its weight."""
        return np.diff(self.offsets)

    @property
    def evaluated(self) -> np.ndarray:
        """int32[E], ascending ids of the clients that have a test item."""
        return np.flatnonzero(self.test >= 0).astype(np.int32)


def leave_one_out(dataset: Dataset) -> Split:
    """Holds out each user's last item for test and the one before for validation.

    A user with fewer than 3 distinct items trains only, on all of them.

    Args:
      dataset: histories in time order.

    Returns:
      The split, with ``name='time'``.

    Raises:
      InputError: a user's training items are the whole catalogue, so that no negative
        can be drawn for her.

    Example:
      >>> import polars as pl
      >>> from fedpeft_jax.data.dataset import build_dataset
      >>> rows = [(1, item, time) for time, item in enumerate([4, 2, 0, 3])]
      >>> rows += [(2, 0, 0), (2, 1, 1)]
      >>> frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
      >>> split = leave_one_out(build_dataset("tiny", frame))
      >>> split.train.tolist(), split.counts.tolist()
      ([2, 4, 0, 1], [2, 2])
      >>> split.valid.tolist(), split.test.tolist(), split.evaluated.tolist()
      ([0, -1], [3, -1], [0])
    """
    lengths = np.diff(dataset.offsets)
    ends = dataset.offsets[1:]
    evaluated = np.flatnonzero(lengths >= MIN_EVALUATED)
    test = np.full(dataset.num_users, -1, np.int32)
    valid = np.full(dataset.num_users, -1, np.int32)
    test[evaluated] = dataset.items[ends[evaluated] - 1]
    valid[evaluated] = dataset.items[ends[evaluated] - 2]

    trains = np.ones(len(dataset.items), bool)
    trains[ends[evaluated] - 1] = False
    trains[ends[evaluated] - 2] = False
    counts = lengths.copy()
    counts[evaluated] -= 2
    if len(full := np.flatnonzero(counts >= dataset.num_items)):
        raise InputError(
            f"{dataset.name}: the training items of user "
            f"{dataset.user_ids[full[0]].item()!r} are the whole catalogue of "
            f"{dataset.num_items} items, so no negative can be drawn: "
            "remove the user or add items"
        )
    return Split(
        name="time",
        num_items=dataset.num_items,
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        train=sort_within(counts, dataset.items[trains], dataset.num_items),
        valid=valid,
        test=test,
    )


def sort_within(counts: np.ndarray, items: np.ndarray, num_items: int) -> np.ndarray:
    """Sorts each user's items, all users in one sort.

    Args:
      counts: int[U], items of each user.
      items: int[nnz], the users' items one after the other.
      num_items: I, above every item.

    Returns:
      int32[nnz], ascending within each user.

    Example:
      >>> sort_within(np.array([2, 1]), np.array([5, 3, 0]), num_items=6).tolist()
      [3, 5, 0]
    """
    # One int64 key a row sorts several times faster than a lexicographic sort.
    starts = np.repeat(np.arange(len(counts), dtype=np.int64) * num_items, counts)
    keys = np.sort(starts + items)
    result: np.ndarray = (keys - starts).astype(np.int32)
    return result
