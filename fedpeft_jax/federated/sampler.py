"""Clients on the device: their histories, and the batch each makes of its own.

All histories lie in one flat array. A client reads a window of it whose length is
static (the capacity of the slot it sits in), so nothing of users x items, and no padded
copy of the data, ever exists.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.typing import Array, History, Key
from fedpeft_jax.data.splits import Split
from fedpeft_jax.federated.negatives import draw_negatives


class ClientStore(NamedTuple):
    """The training items of all clients, as device arrays.

    Attributes:
      items: int32[nnz], ascending within a client.
      starts: int32[U], where a client's items begin.
      counts: int32[U], how many it has.
      excluded: int32[nnz'], `starts` and `counts` of what its negatives are drawn
        outside of; None where that is its training items.
    """

    items: Array
    starts: Array
    counts: Array
    excluded: tuple[Array, Array, Array] | None = None


class ClientHistory(NamedTuple):
    """What one device stores.

    Attributes:
      client_id: int32[]; an id beyond the clients stands for an empty place.
      positives: int32[N], its training items, ascending, `num_items` on padding.
      count: int32[], 0 for an empty place.
      excluded: int32[N + 2], what its negatives are drawn outside of, as `positives`;
        None where that is its training items.
    """

    client_id: Array
    positives: Array
    count: Array  # type: ignore[assignment]  # tuples have a method of that name
    excluded: Array | None = None


class ClientData(NamedTuple):
    """What one client trains on in one participation; slots index `item_ids`.

    The first N rows are the positives, the N x M after them the negatives' distinct
    items, so `K = N (1 + M)`.

    Attributes:
      item_ids: int32[K], distinct global ids, `num_items` on padding.
      positives: int32[N], slots.
      negatives: int32[N, M], slots.
      mask: bool[N], False on padding.
    """

    item_ids: Array
    positives: Array
    negatives: Array
    mask: Array

    @property
    def history(self) -> History:
        """The client's training items as slots."""
        return History(self.positives, self.mask)


def make_store(split: Split, *, exclude_held_out: bool = False) -> ClientStore:
    """Puts the training items of all clients on the device.

    Args:
      split: training, validation and test items.
      exclude_held_out: whether training negatives are drawn outside of the validation
        and test items too. A device cannot know these, and that an item is never a
        negative tells the model that it is held out.

    Example:
      >>> split = Split("toy", 4, np.array([0, 2, 3]), np.array([0, 3, 1], np.int32),
      ...               np.array([-1, -1]), np.array([-1, -1]))
      >>> make_store(split).counts.tolist()
      [2, 1]
    """
    excluded = None
    if exclude_held_out:
        owners = np.repeat(np.arange(split.num_clients), split.counts)
        pairs = [(owners, split.train)]
        for items in (split.valid, split.test):
            held = np.flatnonzero(items >= 0)
            pairs.append((held, items[held]))
        users, items = (np.concatenate(x) for x in zip(*pairs, strict=True))
        counts = np.bincount(users, minlength=split.num_clients)
        order = np.lexsort((items, users))
        excluded = _arrays(items[order], np.concatenate([[0], np.cumsum(counts)]))
    return ClientStore(*_arrays(split.train, split.offsets), excluded)


def _arrays(items: np.ndarray, offsets: np.ndarray) -> tuple[Array, Array, Array]:
    return (
        jnp.asarray(items, jnp.int32),
        jnp.asarray(offsets[:-1], jnp.int32),
        jnp.asarray(np.diff(offsets), jnp.int32),
    )


def read_history(
    store: ClientStore, client_id: Array, *, capacity: int, num_items: int
) -> ClientHistory:
    """Reads one client's history into a window of static length.

    Args:
      store: all histories.
      client_id: int32[]; an id of U or more reads an empty history.
      capacity: N, at least the client's count.
      num_items: I, the padding.
    """

    def read(arrays: tuple[Array, Array, Array], size: int) -> tuple[Array, Array]:
        items, starts, counts = arrays
        start = starts.at[client_id].get(mode="fill", fill_value=0)
        count = counts.at[client_id].get(mode="fill", fill_value=0)
        index = jnp.arange(size, dtype=jnp.int32)
        window = items.at[start + index].get(mode="clip")
        return jnp.where(index < count, window, num_items), count

    positives, count = read((store.items, store.starts, store.counts), capacity)
    excluded = None
    if store.excluded is not None:
        excluded, _ = read(store.excluded, capacity + 2)
    return ClientHistory(client_id, positives, count, excluded)


def make_client_data(
    key: Key,
    history: ClientHistory,
    *,
    num_items: int,
    num_negatives: int = 1,
    num_slots: int = 0,
) -> ClientData:
    """Draws a client's negatives and lays out its rows.

    Args:
      key: the client's key for drawing negatives this round.
      history: its training items.
      num_items: I.
      num_negatives: M, negatives a positive.
      num_slots: draw from the first so many items, 0 for all.
    """
    drawn = draw_negatives(
        key,
        history.positives,
        history.count,
        num_items=num_items,
        num_negatives=num_negatives,
        excluded=history.excluded,
        num_slots=num_slots,
    )
    index = jnp.arange(history.positives.shape[0], dtype=jnp.int32)
    return ClientData(
        item_ids=jnp.concatenate([history.positives, drawn.item_ids]),
        positives=index,
        negatives=index.shape[0] + drawn.slots,
        mask=index < history.count,
    )


def pair_scores(
    scores: Array, data: ClientData, *, num_items: int, num_slots: int = 0
) -> tuple[Array, Array]:
    """Arranges the scores of a client's rows by pairs.

    Where the catalogue is so large that no repeat can occur, every negative has its own
    row, in order, and slicing spares a gather and the scatter of its gradient.

    Args:
      scores: float32[K], one for each gathered row.
      data: the client's slots.
      num_items: I.
      num_slots: negatives are from the first so many items, 0 for all.

    Returns:
      float32[N] scores of the positives and float32[N, M] of their negatives.
    """
    num_pairs, num_negatives = data.negatives.shape
    # All positives and two held-out items may be left out of what they are drawn from.
    if num_pairs * (1 + num_negatives) + 2 <= (num_slots or num_items):
        negatives = scores[num_pairs:].reshape(num_pairs, num_negatives)
        return scores[:num_pairs], negatives
    return scores[data.positives], scores[data.negatives]
