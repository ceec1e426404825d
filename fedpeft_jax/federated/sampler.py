"""Samplers: what a client trains on in one participation.

A sampler decides what a device stores, how a client draws its negatives, and how often
each item is expected to be one. The engine knows nothing else of a protocol.
`fresh_negatives` is the sound sampler and the default.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.keys import ClientPurpose, client_key, purpose_key
from fedpeft_jax.core.ragged import Ragged, read_row
from fedpeft_jax.core.typing import Array, History, Key
from fedpeft_jax.data import Split
from fedpeft_jax.federated.negatives import Negatives, draw_negatives

_HELD_OUT = 2  # the most items beside the positives that a sampler may leave out


class ClientStore(NamedTuple):
    """What the clients hold, as device arrays.

    Attributes:
      train: int32, each client's training items, ascending.
      excluded: int32, each client's items that are never negatives, ascending; None
        where these are its training items.
    """

    train: Ragged
    excluded: Ragged | None = None


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


class Sampler(NamedTuple):
    """How a client pairs its training items with negatives.

    Attributes:
      num_items: I.
      num_negatives: M, negatives per positive.
      make_store: `(split) -> ClientStore`.
      draw: `(key, round, client_id, store, capacity) -> ClientData`: one client's rows
        in one round. The key is the run's; a client id of U or more draws for an empty
        place; the capacity N is static.
      pair_scores: `(scores float32[K], data) -> (float32[N], float32[N, M])`: the
        scores of the positives and of their negatives.
      expected: `(split) -> float64[I]`: how often each item is a negative in one epoch
        of all clients, expected.
    """

    num_items: int
    num_negatives: int
    make_store: Callable[[Split], ClientStore]
    draw: Callable[[Key, Array, Array, ClientStore, int], ClientData]
    pair_scores: Callable[[Array, ClientData], tuple[Array, Array]]
    expected: Callable[[Split], np.ndarray]


def fresh_negatives(num_items: int, num_negatives: int = 1) -> Sampler:
    """Draws negatives for every participation anew, outside the training items.

    A device does not know its held-out items, so they may be drawn.

    Args:
      num_items: I.
      num_negatives: M, negatives per positive.

    Example:
      >>> import jax
      >>> held_out = np.array([-1, -1])
      >>> split = Split("toy", 4, Ragged.from_rows([[0, 3], [1]]), held_out, held_out)
      >>> sampler = fresh_negatives(num_items=4)
      >>> data = sampler.draw(jax.random.key(0), 0, 0, sampler.make_store(split), 2)
      >>> sorted(data.item_ids.tolist())
      [0, 1, 2, 3]
      >>> sampler.expected(split).round(2).tolist()
      [0.33, 1.0, 1.33, 0.33]
    """

    def draw(
        key: Key, round_: Array, client_id: Array, store: ClientStore, capacity: int
    ) -> ClientData:
        positives, count = read_row(store.train, client_id, capacity, num_items)
        own_key = client_key(key, round_, client_id)
        drawn = draw_negatives(
            purpose_key(own_key, ClientPurpose.NEGATIVES),
            count,
            positives,
            count,
            capacity=capacity,
            num_items=num_items,
            num_negatives=num_negatives,
        )
        return lay_out(positives, count, drawn)

    return Sampler(
        num_items=num_items,
        num_negatives=num_negatives,
        make_store=lambda split: ClientStore(split.train.to_device()),
        draw=draw,
        pair_scores=lambda scores, data: pair_scores(scores, data, num_items),
        expected=lambda split: expected_negatives(
            split.train, split.counts * num_negatives, num_items, num_items
        ),
    )


def lay_out(positives: Array, count: Array, drawn: Negatives) -> ClientData:
    """Returns a client's rows: its positives [N], then its negatives."""
    index = jnp.arange(positives.shape[0], dtype=jnp.int32)
    return ClientData(
        item_ids=jnp.concatenate([positives, drawn.item_ids]),
        positives=index,
        negatives=index.shape[0] + drawn.slots,
        mask=index < count,
    )


def pair_scores(scores: Array, data: ClientData, pool: int) -> tuple[Array, Array]:
    """Arranges the scores of a client's rows by pairs.

    Where the pool is so large that no repeat can occur, every negative has its own row,
    in order, and slicing avoids a gather and the scatter of its gradient.

    Args:
      scores: float32[K], one for each gathered row.
      data: the client's slots.
      pool: the number of items that negatives are drawn from.

    Returns:
      float32[N] scores of the positives and float32[N, M] of their negatives.
    """
    num_pairs, num_negatives = data.negatives.shape
    if num_pairs * (1 + num_negatives) + _HELD_OUT <= pool:
        negatives = scores[num_pairs:].reshape(num_pairs, num_negatives)
        return scores[:num_pairs], negatives
    return scores[data.positives], scores[data.negatives]


def expected_negatives(
    excluded: Ragged, draws: np.ndarray, pool: int, num_items: int
) -> np.ndarray:
    """Returns how often each item is drawn when clients draw uniformly.

    A client that draws n negatives from the R items of the pool that it does not
    exclude draws each of them n / R times.

    Args:
      excluded: int32, each client's items that are never negatives.
      draws: int[U], negatives that each client draws.
      pool: negatives are drawn from the first so many items.
      num_items: I.

    Returns:
      float64[I].
    """
    inside = excluded.values < pool
    owners, items = excluded.owners[inside], excluded.values[inside]
    room = pool - np.bincount(owners, minlength=excluded.num_rows)
    rate = draws / np.maximum(room, 1)
    expected = np.zeros(num_items)
    expected[:pool] = rate.sum()
    np.subtract.at(expected, items, rate[owners])
    return np.maximum(expected, 0.0)
