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
