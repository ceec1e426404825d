"""Which interactions train, validate and test.

Leave-one-out after He et al., "Neural Collaborative Filtering" (WWW 2017): the last
item of a history is the test item, the one before it the validation item. 'Last' is by
time, by place in the file, or in a random order. Beside it a global time cut (Ji et
al., "A Critical Study on Data Leakage in Recommender System Offline Evaluation", TOIS
2023), and data that come split.
"""

import dataclasses

import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.dataset import MIN_EVALUATED, Dataset, keep_users
from fedpeft_jax.data.readers.raw import TEST, TRAIN, UNUSED, VALID
from fedpeft_jax.data.settings import DataSettings


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Training, validation and test items of every client (client = user).

    Attributes:
      name: how the split was made, such as ``'time'``.
      num_items: I, the size of the catalogue.
      offsets: int64[U + 1], where each client's training items start in ``train``.
      train: int32[nnz], training items, ascending within a client.
      valid: int32[U], the validation item, -1 for none.
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


def make_split(
    dataset: Dataset, settings: DataSettings | None = None
) -> tuple[Dataset, Split]:
    """Splits a data set as the settings say; by time without any.

    Args:
      dataset: histories in time order.
      settings: `split`, `valid_items`, `time_cut` and `data_seed` of them count.

    Returns:
      The data set of the users that have a training item, and the split of it.

    Raises:
      InputError: if the data lack what the split needs, nobody could be evaluated, or a
        client's training items are the whole catalogue, so that it has no negative.

    Example:
      >>> from fedpeft_jax.data.readers.synthetic import load_synthetic
      >>> data = load_synthetic(num_users=50, num_items=30)
      >>> _, split = make_split(data, DataSettings(split="time_cut", time_cut=0.5))
      >>> split.name, bool((split.counts > 0).all())
      ('time_cut=0.5', True)
    """
    settings = settings or DataSettings()
    if settings.split == "given":
        parts, name = _given(dataset), "given"
    elif settings.split == "time_cut":
        parts, name = _time_cut(dataset, settings), f"time_cut={settings.time_cut:g}"
    else:
        parts, name = _leave_out(dataset, settings), settings.split
    trains = _per_user(dataset, parts == TRAIN) > 0
    if not trains.any():
        raise InputError(
            f"{dataset.name}: split={name} leaves nobody a training item: choose "
            "another --split"
        )
    if not trains.all():
        note = f"left out {(~trains).sum()} users without a training item"
        parts = parts[np.repeat(trains, np.diff(dataset.offsets))]
        dataset = keep_users(dataset, trains, note)
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
      InputError: as `make_split`.

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
    return _split(dataset, _hold_out_last(dataset, 2), "time")


def _leave_out(dataset: Dataset, settings: DataSettings) -> np.ndarray:
    """Parts int8[nnz] with the last items of an order held out."""
    held_out = 1 + settings.valid_items
    if settings.split == "time":
        if dataset.times is None and dataset.places is not None:
            raise InputError(
                f"{dataset.name}: split=time and there are no times: set "
                "--time_column, or --split=file or random"
            )
        return _hold_out_last(dataset, held_out)
    if settings.split == "file":
        if dataset.places is None:
            raise InputError(f"{dataset.name}: there is no file: set --split=time")
        order = dataset.places
    else:
        rng = np.random.default_rng([settings.data_seed, 3])
        order = rng.permutation(len(dataset.items))
    owners = np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))
    sort = np.lexsort((order, owners))
    parts = np.empty(len(sort), np.int8)
    parts[sort] = _hold_out_last(dataset, held_out)
    return parts


def _hold_out_last(dataset: Dataset, held_out: int) -> np.ndarray:
    parts = np.full(len(dataset.items), TRAIN, np.int8)
    long = np.diff(dataset.offsets) >= MIN_EVALUATED
    ends = dataset.offsets[1:][long]
    parts[ends - 1] = TEST
    if held_out > 1:
        parts[ends - 2] = VALID
    return parts


def _time_cut(dataset: Dataset, settings: DataSettings) -> np.ndarray:
    """Everything before one moment trains, and the first items after it are ranked."""
    if dataset.times is None:
        raise InputError(
            f"{dataset.name}: split=time_cut and there are no times: set --time_column"
        )
    place = int(settings.time_cut * len(dataset.times))
    moment = np.partition(dataset.times, place)[place]
    after = dataset.times >= moment
    parts = np.where(after, UNUSED, TRAIN).astype(np.int8)
    counts = np.diff(dataset.offsets)
    before = _per_user(dataset, ~after)
    first = dataset.offsets[:-1] + before
    held_out = 1 + settings.valid_items
    enough = (before > 0) & (counts - before >= held_out)
    if settings.valid_items:
        parts[first[enough]] = VALID
    parts[first[enough] + held_out - 1] = TEST
    return parts


def _given(dataset: Dataset) -> np.ndarray:
    if dataset.parts is None:
        raise InputError(f"{dataset.name}: split=given and the data come whole")
    for part, name in ((VALID, "validation"), (TEST, "test")):
        held_out = _per_user(dataset, dataset.parts == part)
        if (held_out > 1).any():
            user = dataset.user_ids[held_out.argmax()].item()
            raise InputError(
                f"{dataset.name}: user {user!r} has {held_out.max()} {name} items, and "
                "one is ranked: leave one in the file"
            )
    return dataset.parts


def _per_user(dataset: Dataset, rows: np.ndarray) -> np.ndarray:
    """int64[U], how many of each user's rows bool[nnz] are True."""
    owners = np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))
    return np.bincount(owners[rows], minlength=dataset.num_users)


def _split(dataset: Dataset, parts: np.ndarray, name: str) -> Split:
    owners = np.repeat(np.arange(dataset.num_users), np.diff(dataset.offsets))
    held_out = np.full((2, dataset.num_users), -1, np.int32)
    for row, part in enumerate((VALID, TEST)):
        held_out[row, owners[parts == part]] = dataset.items[parts == part]
    valid, test = held_out
    valid[test < 0] = -1  # nobody ranks it
    trains = parts == TRAIN
    counts = np.bincount(owners[trains], minlength=dataset.num_users)
    if len(full := np.flatnonzero(counts >= dataset.num_items)):
        raise InputError(
            f"{dataset.name}: the training items of user "
            f"{dataset.user_ids[full[0]].item()!r} are the whole catalogue of "
            f"{dataset.num_items} items, so no negative can be drawn: "
            "remove the user or add items"
        )
    return Split(
        name=name,
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
