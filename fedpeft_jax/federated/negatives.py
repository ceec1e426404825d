"""Training negatives: distinct unseen items, drawn in compiled code without a sort.

A client whose sorted items `p_0 < p_1 < ...` must not be drawn has `R = I - count`
unseen items, and the r-th of these is `r + #{k: p_k - k <= r}`. To draw `n` distinct
ranks at low cost, each rank comes from its own stratum: `0..R-1` is divided into `n`
runs of nearly equal width, one rank is drawn from each run, and all ranks are rotated
by one uniform offset. Every single draw is therefore exactly uniform over the unseen
items.

If there are more pairs than unseen items, every unseen item is drawn, and pair `j`
takes draw `j mod R`. Repeated negatives then share one row, which needs no search.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fedpeft_jax.core.typing import Array, Key


class Negatives(NamedTuple):
    """A client's negatives for one participation, `n = count x M` draws.

    Attributes:
      item_ids: int32[N x M], ids of the distinct items; `num_items` on padding.
      slots: int32[N, M], for each positive, the indices of its negatives in `item_ids`.
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
      key: random key of the client for this purpose and round.
      count: int32[], the client's number of positives.
      seen: int32[X], the items that must not be drawn, ascending; only the first
        `num_seen` entries are read.
      num_seen: int32[], how many of `seen` are in the pool. At least one item of the
        pool must be unseen.
      capacity: N, the number of positives with padding.
      num_items: I, the number of items.
      num_negatives: M, negatives per positive.
      pool: negatives are drawn from the items `0..pool-1`; None for all items.

    Returns:
      The distinct items, and the slots of each positive's negatives among them.

    Example:
      >>> seen = jnp.array([1, 2, 4, 5, 6])  # four items and one entry of padding
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

    # `lax.div` and `lax.rem` truncate: the floors of `//` and `%` compile more slowly.
    pair = jnp.arange(width, dtype=jnp.int32)
    base = lax.div(num_unseen, num_pairs)
    longer = num_unseen - base * num_pairs
    start = pair * base + jnp.minimum(pair, longer)  # at most R: no overflow
    size = (base + (pair < longer)).astype(jnp.float32)
    bits = jax.random.bits(key, (width + 1,))
    # 24 bits, so that the product stays below `size`.
    uniform = (bits[1:] >> 8).astype(jnp.float32) * 2.0**-24
    drawn = start + (uniform * size).astype(jnp.int32)
    # The remainder is uniform up to an error of R / 2**32.
    offset = lax.rem(bits[0], num_unseen.astype(jnp.uint32)).astype(jnp.int32)
    rank = drawn + offset
    rank = jnp.where(rank >= num_unseen, rank - num_unseen, rank)

    index = jnp.arange(seen.shape[0], dtype=jnp.int32)
    gaps = jnp.where(index < num_seen, seen - index, num_items)
    past = jnp.searchsorted(gaps, rank, side="right", method="scan")
    used = pair < jnp.minimum(num_pairs, num_unseen)
    item_ids = jnp.where(used, rank + past.astype(jnp.int32), num_items)
    return Negatives(item_ids, lax.rem(pair, num_unseen).reshape(-1, num_negatives))
