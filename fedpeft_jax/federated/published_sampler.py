"""The sampler of the published evaluation, for its reproduction.

None of its options is part of the sound protocol. `docs/why-numbers-differ.md` lists
the effect of each option on the metrics.
"""

import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.keys import NO_ROUND, client_key
from fedpeft_jax.core.ragged import Ragged, read_row
from fedpeft_jax.core.typing import Array, Key
from fedpeft_jax.data import Split
from fedpeft_jax.federated.sampler import (
    MAX_HELD_OUT,
    ClientData,
    ClientStore,
    Sampler,
    draw_pairs,
    expected_negatives,
    pair_scores,
)


def published_negatives(
    num_items: int,
    num_negatives: int = 1,
    *,
    num_slots: int = 0,
    fixed: bool = False,
    exclude_held_out: bool = False,
) -> Sampler:
    """Returns the sampler that draws negatives as the published evaluation does.

    Args:
      num_items: I, the number of items.
      num_negatives: M, negatives per positive.
      num_slots: negatives are drawn from the items `0..num_slots-1`; 0 for all items.
        The other items are then never negatives.
      fixed: whether a client draws its negatives once, for all participations.
      exclude_held_out: whether the validation and test items are never negatives
        either. A device does not have these items, and leaving them out reveals to the
        model which items are held out.

    Example:
      >>> items = np.array([2]), np.array([3])
      >>> split = Split("toy", 4, Ragged.from_rows([[0]]), *items)
      >>> published_negatives(4, exclude_held_out=True).expected(split).tolist()
      [0.0, 1.0, 0.0, 0.0]
    """
    pool = num_slots or num_items

    def excluded(split: Split) -> Ragged:
        return _with_held_out(split) if exclude_held_out else split.train

    def make_store(split: Split) -> ClientStore:
        other = excluded(split).to_device() if exclude_held_out else None
        return ClientStore(split.train.to_device(), other)

    def draw(
        key: Key, round_: Array, client_id: Array, store: ClientStore, capacity: int
    ) -> ClientData:
        positives, count = read_row(store.train, client_id, capacity, num_items)
        seen = positives
        if store.excluded is not None:
            room = capacity + MAX_HELD_OUT
            seen, _ = read_row(store.excluded, client_id, room, num_items)
        return draw_pairs(
            client_key(key, jnp.int32(NO_ROUND) if fixed else round_, client_id),
            positives,
            count,
            seen,
            jnp.sum(seen < pool, dtype=jnp.int32),
            num_items=num_items,
            num_negatives=num_negatives,
            pool=pool,
        )

    return Sampler(
        num_items=num_items,
        num_negatives=num_negatives,
        make_store=make_store,
        draw=draw,
        pair_scores=lambda scores, data: pair_scores(scores, data, pool),
        expected=lambda split: expected_negatives(
            excluded(split), split.counts * num_negatives, pool, num_items
        ),
    )


def lack_negatives(
    split: Split, *, num_slots: int = 0, exclude_held_out: bool = False
) -> np.ndarray:
    """Returns bool[U], the clients for which no negative can be drawn.

    Args:
      split: the training, validation and test items of the clients.
      num_slots: as in `published_negatives`.
      exclude_held_out: as in `published_negatives`.

    Example:
      >>> items = np.array([2, -1]), np.array([1, -1])
      >>> split = Split("toy", 3, Ragged.from_rows([[0], [0, 1]]), *items)
      >>> lack_negatives(split, exclude_held_out=True).tolist()
      [True, False]
      >>> lack_negatives(split, num_slots=2).tolist()
      [False, True]
    """
    pool = num_slots or split.num_items
    excluded = _with_held_out(split) if exclude_held_out else split.train
    lacking: np.ndarray = excluded.keep_values(excluded.values < pool).counts >= pool
    return lacking


def _with_held_out(split: Split) -> Ragged:
    """Returns each client's training, validation and test items, ascending."""
    if split.all_valid is not None or split.all_test is not None:
        raise InputError(
            "`train_negatives=unseen` reproduces a protocol with one validation and "
            "one test item per user, and a user has several: use "
            "`train_negatives=unseen_in_training`"
        )
    owners, items = [split.train.owners], [split.train.values]
    for held_out in (split.valid, split.test):
        clients = np.flatnonzero(held_out >= 0)
        owners.append(clients)
        items.append(held_out[clients])
    clients, values = np.concatenate(owners), np.concatenate(items)
    order = np.lexsort((values, clients))
    counts = np.bincount(clients, minlength=split.num_clients)
    return Ragged.from_counts(values[order], counts)
