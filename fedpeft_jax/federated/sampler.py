"""Samplers, which determine what a client trains on in one participation.

A sampler decides what a device stores, how a client draws its negatives, and how often
each item is expected to be a negative. No other part of the engine depends on the
protocol. `fresh_negatives` is the sound sampler and the default.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.keys import ClientPurpose, client_key, purpose_key
from fedpeft_jax.core.ragged import Ragged, read_row
from fedpeft_jax.core.typing import Array, History, Key
from fedpeft_jax.data import Split
from fedpeft_jax.federated.negatives import draw_negatives

MAX_HELD_OUT = 2  # the most items besides the positives that a sampler may exclude


class ClientStore(NamedTuple):
    """What the clients hold, as device arrays.

    Attributes:
      train: ragged int32, the training items of each client, ascending.
      excluded: ragged int32, the items that are never negatives of each client,
        ascending; None if these are its training items.
    """

    train: Ragged
    excluded: Ragged | None = None


class ClientData(NamedTuple):
    """What one client trains on in one participation.

    The first N rows are the positives, and the N x M rows after them are the distinct
    items of the negatives, so `K = N (1 + M)`. A slot is an index into `item_ids`.

    Attributes:
      item_ids: int32[K], distinct global ids; `num_items` on padding.
      positives: int32[N], slots of the positives.
      negatives: int32[N, M], slots of each positive's negatives.
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
      num_items: I, the number of items.
      num_negatives: M, negatives per positive.
      make_store: `(split) -> ClientStore`, what the devices store.
      draw: `(key, round, client_id, store, capacity) -> ClientData`, the rows of one
        client in one round. The key is the run's key for its rounds, a client id of U
        or more stands for an empty place, and the capacity N is static.
      pair_scores: `(scores float32[K], data) -> (float32[N], float32[N, M])`, the
        scores of the positives and of their negatives.
      expected: `(split) -> float64[I]`, how often each item is expected to be a
        negative in one epoch of all clients.
    """

    num_items: int
    num_negatives: int
    make_store: Callable[[Split], ClientStore]
    draw: Callable[[Key, Array, Array, ClientStore, int], ClientData]
    pair_scores: Callable[[Array, ClientData], tuple[Array, Array]]
    expected: Callable[[Split], np.ndarray]


def fresh_negatives(num_items: int, num_negatives: int = 1) -> Sampler:
    """Returns the sampler that draws new negatives in every participation.

    They are drawn uniformly from all items except the client's training items. Held-out
    items may be drawn, because a device does not have them.

    Args:
      num_items: I, the number of items.
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
        return draw_pairs(
            client_key(key, round_, client_id),
            positives,
            count,
            positives,
            count,
            num_items=num_items,
            num_negatives=num_negatives,
        )

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


def draw_pairs(
    key: Key,
    positives: Array,
    count: Array,
    seen: Array,
    num_seen: Array,
    *,
    num_items: int,
    num_negatives: int,
    pool: int | None = None,
) -> ClientData:
    """Returns the rows of a client: its positives, then the negatives that it draws.

    Args:
      key: the client's key of the round.
      positives: int32[N], the client's training items; `num_items` on padding.
      count: int32[], the number of positives without padding.
      seen: int32[X], the items that are never negatives, ascending.
      num_seen: int32[], how many of these are in the pool.
      num_items: I, the number of items.
      num_negatives: M, negatives per positive.
      pool: negatives are drawn from the items `0..pool-1`; None for all items.
    """
    drawn = draw_negatives(
        purpose_key(key, ClientPurpose.NEGATIVES),
        count,
        seen,
        num_seen,
        capacity=positives.shape[0],
        num_items=num_items,
        num_negatives=num_negatives,
        pool=pool,
    )
    index = jnp.arange(positives.shape[0], dtype=jnp.int32)
    return ClientData(
        item_ids=jnp.concatenate([positives, drawn.item_ids]),
        positives=index,
        negatives=index.shape[0] + drawn.slots,
        mask=index < count,
    )


def pair_scores(scores: Array, data: ClientData, pool: int) -> tuple[Array, Array]:
    """Returns the scores of a client's positives and of their negatives.

    If the pool is so large that no negative can repeat, every negative has its own row,
    in order. A slice then avoids a gather, and the scatter of its gradient.

    Args:
      scores: float32[K], one score per gathered row.
      data: the client's slots.
      pool: the number of items that negatives are drawn from.

    Returns:
      float32[N], the scores of the positives, and float32[N, M], those of their
      negatives.

    Example:
      >>> slots = jnp.arange(2), jnp.array([[2], [3]])
      >>> data = ClientData(jnp.array([7, 8, 0, 1]), *slots, jnp.ones(2, bool))
      >>> positives, negatives = pair_scores(jnp.array([4.0, 3.0, 2.0, 1.0]), data, 9)
      >>> positives.tolist(), negatives.tolist()
      ([4.0, 3.0], [[2.0], [1.0]])
    """
    num_pairs, num_negatives = data.negatives.shape
    if num_pairs * (1 + num_negatives) + MAX_HELD_OUT <= pool:
        negatives = scores[num_pairs:].reshape(num_pairs, num_negatives)
        return scores[:num_pairs], negatives
    return scores[data.positives], scores[data.negatives]


def expected_negatives(
    excluded: Ragged, draws: np.ndarray, pool: int, num_items: int
) -> np.ndarray:
    """Returns how often each item is expected to be drawn, if draws are uniform.

    A client that draws n negatives from the R items of the pool that it does not
    exclude draws each of these items n / R times in expectation.

    Args:
      excluded: ragged int32, the items that are never negatives of each client.
      draws: int[U], the number of negatives that each client draws.
      pool: negatives are drawn from the items `0..pool-1`.
      num_items: I, the number of items.

    Returns:
      float64[I], the expected number of draws of each item.

    Example:
      >>> excluded = Ragged.from_rows([[0, 1], [2]])
      >>> draws = np.array([1, 2])
      >>> expected_negatives(excluded, draws, pool=3, num_items=4).tolist()
      [1.0, 1.0, 1.0, 0.0]
    """
    inside = excluded.values < pool
    owners, items = excluded.owners[inside], excluded.values[inside]
    room = pool - np.bincount(owners, minlength=excluded.num_rows)
    rate = draws / np.maximum(room, 1)
    expected = np.zeros(num_items)
    expected[:pool] = rate.sum()
    np.subtract.at(expected, items, rate[owners])
    return np.maximum(expected, 0.0)
