"""Training negatives: drawn in a compiled round, unseen and distinct without a sort.

A client with the sorted items `p_0 < p_1 < ...`, of which none may be drawn, has
`R = I - count` unseen items, and `r + #{k: p_k - k <= r}` is the r-th of them. Drawing
`n` distinct ranks is cheap when each comes from a stratum of its own: `0..R-1` is cut
into `n` runs of nearly equal width, one rank is drawn from each, and all are rotated by
one uniform offset, so that every single draw is exactly uniform over the unseen items.

With more pairs than unseen items every unseen item is drawn, and pair `j` takes draw
`j mod R`: repeats share one row, and the row is known without a search.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fedpeft_jax.core.typing import Array, Key


class Negatives(NamedTuple):
    """A client's draws for one participation, `n = count x M` of them.

    Attributes:
      item_ids: int32[N x M], the distinct items; `num_items` on padding.
      slots: int32[N, M], which of them is the m-th negative of the n-th positive.
    """

    item_ids: Array
    slots: Array


def draw_negatives(
    key: Key,
    count: Array,
    seen: Array,
    num_seen: Array,
    *,
    capacity: int,
    num_items: int,
    num_negatives: int = 1,
    pool: int | None = None,
) -> Negatives:
    """Draws negatives uniformly from the items that a client has not seen.

    The draws depend on the key and the client's items, not on the padding.

    Args:
      key: the client's key for this purpose and round.
      count: int32[], the client's number of positives.
      seen: int32[X], the items that are never drawn, ascending; behind the first
        `num_seen` of them may be anything.
      num_seen: int32[], how many of them are in the pool; at least one item of the pool
        must be unseen.
      capacity: N, the positives that the client has room for.
      num_items: I.
      num_negatives: M, negatives per positive.
      pool: negatives are drawn from the first so many items; None for all.

    Returns:
      The distinct items and each pair's slot among them.

    Example:
      >>> seen = jnp.array([1, 2, 5, 6, 6])  # four items and one place of padding
      >>> draws = draw_negatives(
      ...     jax.random.key(0), jnp.int32(4), seen, jnp.int32(4),
      ...     capacity=5, num_items=6,
      ... )
      >>> sorted(draws.item_ids.tolist())  # two unseen items for four pairs
      [0, 3, 6, 6, 6]
      >>> draws.slots[:, 0].tolist()
      [0, 1, 0, 1, 0]
    """
    width = capacity * num_negatives
    num_pairs = jnp.maximum(count * num_negatives, 1)
    num_unseen = jnp.maximum((pool or num_items) - num_seen, 1)

    # Truncating `lax.div` and `lax.rem`: the floors of `//` and `%` cost compile time.
    pair = jnp.arange(width, dtype=jnp.int32)
    base = lax.div(num_unseen, num_pairs)
    longer = num_unseen - base * num_pairs
    start = pair * base + jnp.minimum(pair, longer)  # never beyond R: no overflow
    size = (base + (pair < longer)).astype(jnp.float32)
    bits = jax.random.bits(key, (width + 1,))
    # 24 bits, so that the product stays below `size`.
    uniform = (bits[1:] >> 8).astype(jnp.float32) * 2.0**-24
    drawn = start + (uniform * size).astype(jnp.int32)
    # The remainder is uniform up to R / 2**32.
    offset = lax.rem(bits[0], num_unseen.astype(jnp.uint32)).astype(jnp.int32)
    rank = drawn + offset
    rank = jnp.where(rank >= num_unseen, rank - num_unseen, rank)

    index = jnp.arange(seen.shape[0], dtype=jnp.int32)
    gaps = jnp.where(index < num_seen, seen - index, num_items)
    past = jnp.searchsorted(gaps, rank, side="right", method="scan")
    used = pair < jnp.minimum(num_pairs, num_unseen)
    item_ids = jnp.where(used, rank + past.astype(jnp.int32), num_items)
    return Negatives(item_ids, lax.rem(pair, num_unseen).reshape(-1, num_negatives))
