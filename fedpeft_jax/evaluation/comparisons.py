"""The compiled part of ranking: counts the items that score above a target."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.ragged import Ragged, read_row
from fedpeft_jax.core.typing import Array, History

# Shares of the clients, shortest histories first, at which a length class ends. Three
# classes pad MovieLens-1M's histories about twofold, one class would pad them about
# fourteenfold. Each class is compiled.
_CLASS_ENDS = (0.7, 0.95, 1.0)


@partial(jax.jit, static_argnames="length")
def read_histories(train: Ragged, client_ids: Array, length: int) -> History:
    """Returns the training items of clients [B] as a padded history [B, length]."""
    read = jax.vmap(lambda client_id: read_row(train, client_id, length, fill=0))
    ids, counts = read(client_ids)
    return History(ids, jnp.arange(length)[None, :] < counts[:, None])


@jax.jit
def compare_with_candidates(scores: Array, ids: Array) -> Array:
    """Counts the candidates that score above the target, and those tied with it.

    Args:
      scores: float32[B, 1 + C], the target's first.
      ids: int32[B, 1 + C], with the target's id in place of padding.

    Returns:
      int32[2, B], the numbers above and tied.
    """
    return _compare(scores[:, 1:], scores[:, :1], ids[:, 1:] != ids[:, :1])


@jax.jit
def compare_with_catalogue(
    scores: Array, targets: Array, others: Array, history: History
) -> Array:
    """Counts the catalogue's items that score above the target, and those tied with it.

    Args:
      scores: float32[B, I].
      targets: int32[B], the target of each client.
      others: int32[B], one more item to exclude; -1 for none.
      history: [B, N], items to exclude.

    Returns:
      int32[2, B], the numbers above and tied.
    """
    # Excluded items are counted with all others and subtracted again, from the same
    # scores: they are few, and a mask would have clients x items entries.
    pick = partial(jnp.take_along_axis, scores, axis=1)
    ids = jnp.stack([targets, others], axis=1)
    ids = jnp.concatenate([ids, jnp.where(history.mask, history.ids, -1)], axis=1)
    target = pick(targets[:, None])
    excluded = _compare(pick(jnp.maximum(ids, 0)), target, ids >= 0)
    return _compare(scores, target, True) - excluded


@partial(jax.jit, static_argnames="width")
def compare_several_with_candidates(
    scores: Array, mask: Array, most: Array, width: int
) -> Array:
    """Counts, for each of several targets, the items above it and those tied with it.

    Args:
      scores: float32[B, T + C], those of the targets first.
      mask: bool[B, T + C], the entries that are a target or a candidate.
      most: int32[], the largest number of targets of a client; the results of further
        columns are zero.
      width: T, the columns of targets.

    Returns:
      int32[2, B, T], the numbers above and tied, other targets included.
    """

    def compare(place: Array, found: Array) -> Array:
        target = jax.lax.dynamic_slice_in_dim(scores, place, 1, axis=1)
        others = mask & (jnp.arange(scores.shape[1]) != place)[None, :]
        return found.at[:, :, place].set(_compare(scores, target, others))

    found = jnp.zeros((2, scores.shape[0], width), jnp.int32)
    return jax.lax.fori_loop(0, most, compare, found)


@jax.jit
def compare_several_with_catalogue(
    scores: Array, targets: Array, most: Array, others: Array, history: History
) -> Array:
    """Counts, for each of several targets, the items above it and those tied with it.

    Args:
      scores: float32[B, I].
      targets: int32[B, T], the targets of each client, then any items.
      most: int32[], the largest number of targets of a client; the results of further
        columns are zero.
      others: int32[B, V], more items to exclude; -1 is padding.
      history: [B, N], items to exclude.

    Returns:
      int32[2, B, T], the numbers above and tied, other targets included.
    """
    # As in `compare_with_catalogue`. The loop keeps one comparison in memory, and ends
    # at the largest number of this block.
    pick = partial(jnp.take_along_axis, scores, axis=1)
    ids = jnp.concatenate([others, jnp.where(history.mask, history.ids, -1)], axis=1)
    excluded, own = pick(jnp.maximum(ids, 0)), pick(targets)

    def compare(place: Array, found: Array) -> Array:
        target = jax.lax.dynamic_slice_in_dim(own, place, 1, axis=1)
        left_out = _compare(excluded, target, ids >= 0) + _compare(target, target, True)
        return found.at[:, :, place].set(_compare(scores, target, True) - left_out)

    return jax.lax.fori_loop(
        0, most, compare, jnp.zeros((2, *targets.shape), jnp.int32)
    )


def _compare(scores: Array, target: Array, mask: Array | bool) -> Array:
    """Returns int32[2, B], how many scores [B, S] are above and tied with [B, 1]."""
    above = ~(scores <= target) & mask  # true also if either is NaN
    ties = (scores == target) & mask
    return jnp.stack([above.sum(axis=1), ties.sum(axis=1)])


def length_classes(counts: np.ndarray) -> list[np.ndarray]:
    """Returns the rows of counts int[E], in a few groups of similar counts.

    Example:
      >>> [rows.tolist() for rows in length_classes(np.array([5, 1, 1, 1]))]
      [[1, 2, 3], [0]]
    """
    rows = np.argsort(counts, kind="stable")
    ends = [counts[rows[int(np.ceil(end * len(rows))) - 1]] for end in _CLASS_ENDS]
    cuts = np.searchsorted(counts[rows], np.unique(ends), side="right")
    return np.split(rows, cuts[:-1])
