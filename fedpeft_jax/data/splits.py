"""Splits: which interactions train, which validate, and which test.

Leave-one-out after He et al., "Neural Collaborative Filtering" (WWW 2017): the last
item of a history is the test item, the one before it the validation item. 'Last' is by
time, by place in the file, or in a random order. There is also a global time cut (Ji et
al., "A Critical Study on Data Leakage in Recommender System Offline Evaluation", TOIS
2023), and data may already be split when they are read, then also with several held-out
items of a user.
"""

import dataclasses

import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.ragged import Ragged, sort_rows
from fedpeft_jax.data.dataset import (
    MIN_EVALUATED,
    Dataset,
    keep_users,
    note_equal_times,
)
from fedpeft_jax.data.readers.raw import TEST, TRAIN, UNUSED, VALID
from fedpeft_jax.data.settings import DataSettings


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Training, validation and test items of every client (client = user).

    Attributes:
      name: how the split was made, such as ``'time'``.
      num_items: I, the size of the catalogue.
      train: int32 values [nnz] in U rows: the training items of each client, ascending.
      valid: int32[U], the validation item, -1 for none; the first one if there are
        several.
      test: int32[U], the test item, -1 for a client that trains only; the first one if
        there are several.
      all_valid: int32 values in U rows: all validation items of each client; None if
        no client has several.
      all_test: int32 values in U rows: all test items of each client; None if no client
        has several.

    Example:
      >>> train, tests = Ragged.from_rows([[0], [1]]), Ragged.from_rows([[2, 3], []])
      >>> split = Split("toy", 4, train, np.array([-1, -1]), np.array([2, -1]),
      ...               all_test=tests)
      >>> split.held_out("test").row(0).tolist(), split.held_out("valid").counts.sum()
      ([2, 3], np.int64(0))
    """

    name: str
    num_items: int
    train: Ragged
    valid: np.ndarray
    test: np.ndarray
    all_valid: Ragged | None = None
    all_test: Ragged | None = None

    def held_out(self, target: str) -> Ragged:
        """Returns int32 values in U rows: all held-out items of each client.

        Args:
          target: ``'valid'`` or ``'test'``.
        """
        every = self.all_valid if target == "valid" else self.all_test
        if every is not None:
            return every
        first = self.valid if target == "valid" else self.test
        has = first >= 0
        return Ragged.from_counts(np.asarray(first[has], np.int32), has)

    @property
    def num_clients(self) -> int:
        """U, the number of clients."""
        return self.train.num_rows

    @property
    def counts(self) -> np.ndarray:
        """int64[U], the number of training items of each client: its weight."""
        return self.train.counts

    @property
    def evaluated(self) -> np.ndarray:
        """int32[E], ascending ids of the clients that have a test item."""
        return np.flatnonzero(self.test >= 0).astype(np.int32)


def make_split(
    dataset: Dataset, settings: DataSettings | None = None
) -> tuple[Dataset, Split]:
    """Splits a data set according to the settings.

    Args:
      dataset: histories in time order.
      settings: the settings `split`, `valid_items`, `time_cut` and `data_seed`; the
        defaults of `DataSettings` if None.

    Returns:
      The data set of the users that have a training item, and its split.

    Raises:
      InputError: if the data lack what the split needs, no user has a training item, or
        the training items of a user are the whole catalogue, so there is no negative.

    Example:
      >>> from fedpeft_jax.data.generated import load_synthetic
      >>> data = load_synthetic(num_users=50, num_items=30)
      >>> _, split = make_split(data, DataSettings(split="time_cut", time_cut=0.5))
      >>> split.name, bool((split.counts > 0).all())
      ('time_cut=0.5', True)
    """
    settings = settings or DataSettings()
    name = settings.split
    if settings.split == "given" or dataset.parts is not None:
        parts = _given(dataset, settings)
    elif settings.split == "time_cut":
        parts, name = _time_cut(dataset, settings), f"time_cut={settings.time_cut:g}"
    else:
        parts = _leave_out(dataset, settings)
    trains = dataset.items.keep_values(parts == TRAIN).counts > 0
    if not trains.any():
        raise InputError(
            f"{dataset.name}: `split={settings.split}` leaves no user a training item: "
            "choose another `split`"
        )
    if not trains.all():
        note = f"left out {(~trains).sum()} users without a training item"
        parts = parts[trains[dataset.items.owners]]
        dataset = keep_users(dataset, trains, note)
    if settings.split == "time":
        dataset = note_equal_times(dataset)
    if unused := int((parts == UNUSED).sum()):
        note = f"{unused} interactions are neither trained on nor ranked"
        dataset = dataclasses.replace(dataset, notes=(*dataset.notes, note))
    return dataset, _split(dataset, parts, name)


def leave_one_out(dataset: Dataset) -> Split:
    """Holds out each user's last item for test and the one before for validation.

    A user with fewer than 3 distinct items trains only, on all of them.

    Args:
      dataset: histories in time order.

    Returns:
      The split, with ``name='time'``.

    Raises:
      InputError: if the training items of a user are the whole catalogue.

    Example:
      >>> import polars as pl
      >>> from fedpeft_jax.data.dataset import build
      >>> from fedpeft_jax.data.readers.raw import Raw
      >>> rows = [(1, item, time) for time, item in enumerate([4, 2, 0, 3])]
      >>> rows += [(2, 0, 0), (2, 1, 1)]
      >>> frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
      >>> split = leave_one_out(build(Raw("tiny", frame)))
      >>> split.train.values.tolist(), split.counts.tolist()
      ([2, 4, 0, 1], [2, 2])
      >>> split.valid.tolist(), split.test.tolist(), split.evaluated.tolist()
      ([0, -1], [3, -1], [0])
    """
    return _split(dataset, _hold_out_last(dataset, 2), "time")


def _leave_out(dataset: Dataset, settings: DataSettings) -> np.ndarray:
    """Parts int8[nnz] that hold out the last items of an order."""
    held_out = 1 + settings.valid_items
    if settings.split == "time":
        if dataset.times is None and dataset.places is not None:
            raise InputError(
                f"{dataset.name}: `split=time` needs times, and there are no times: "
                "set `time_column`, or use `split=file` or `split=random`"
            )
        return _hold_out_last(dataset, held_out)
    if settings.split == "file":
        if dataset.places is None:
            raise InputError(
                f"{dataset.name}: `split=file` needs a file, and there is no file: use "
                "`split=time`"
            )
        order = dataset.places
    else:
        rng = np.random.default_rng([settings.data_seed, 3])
        order = rng.permutation(len(dataset.items.values))
    sort = np.lexsort((order, dataset.items.owners))
    parts = np.empty(len(sort), np.int8)
    parts[sort] = _hold_out_last(dataset, held_out)
    return parts


def _hold_out_last(dataset: Dataset, held_out: int) -> np.ndarray:
    parts = np.full(len(dataset.items.values), TRAIN, np.int8)
    long = dataset.items.counts >= MIN_EVALUATED
    ends = dataset.items.offsets[1:][long]
    parts[ends - 1] = TEST
    if held_out > 1:
        parts[ends - 2] = VALID
    return parts


def _time_cut(dataset: Dataset, settings: DataSettings) -> np.ndarray:
    """Parts int8[nnz]: all before one moment trains, the next items are held out."""
    if dataset.times is None:
        raise InputError(
            f"{dataset.name}: `split=time_cut` needs times, and there are no times: "
            "set `time_column`"
        )
    place = int(settings.time_cut * len(dataset.times))
    moment = np.partition(dataset.times, place)[place]
    after = dataset.times >= moment
    parts = np.where(after, UNUSED, TRAIN).astype(np.int8)
    before = dataset.items.keep_values(~after).counts
    first = dataset.items.offsets[:-1] + before
    held_out = 1 + settings.valid_items
    enough = (before > 0) & (dataset.items.counts - before >= held_out)
    if settings.valid_items:
        parts[first[enough]] = VALID
    parts[first[enough] + held_out - 1] = TEST
    return parts


def _given(dataset: Dataset, settings: DataSettings) -> np.ndarray:
    if dataset.parts is None:
        raise InputError(
            f"{dataset.name}: `split=given` needs data that are already split, and "
            "these are not: use another `split`"
        )
    if settings.split != "given":
        raise InputError(
            f"{dataset.name}: the data are already split, and `split={settings.split}` "
            "would split them again: set `split=given`"
        )
    return dataset.parts


def _split(dataset: Dataset, parts: np.ndarray, name: str) -> Split:
    items = dataset.items
    tests = items.keep_values(parts == TEST)
    # A user without a test item is not evaluated.
    evaluated = tests.counts > 0
    valids = items.keep_values((parts == VALID) & evaluated[items.owners])
    train = items.keep_values(parts == TRAIN)
    if len(full := np.flatnonzero(train.counts >= dataset.num_items)):
        raise InputError(
            f"{dataset.name}: the training items of user "
            f"{dataset.user_ids[full[0]].item()!r} are the whole catalogue of "
            f"{dataset.num_items} items, so no negative can be drawn ({len(full)} such "
            "users): remove them or add items"
        )
    return Split(
        name=name,
        num_items=dataset.num_items,
        train=sort_rows(train, dataset.num_items),
        valid=_first(valids),
        test=_first(tests),
        all_valid=valids if (valids.counts > 1).any() else None,
        all_test=tests if (tests.counts > 1).any() else None,
    )


def _first(rows: Ragged) -> np.ndarray:
    """Returns int32[U], the first value of each row, -1 for an empty one."""
    result = np.full(rows.num_rows, -1, np.int32)
    has = rows.counts > 0
    result[has] = rows.values[rows.offsets[:-1][has]]
    return result
