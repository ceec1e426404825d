"""Generated data sets: a small one to learn from, and large ones to measure with."""

import numpy as np

from fedpeft_jax.core.ragged import Ragged
from fedpeft_jax.data.dataset import Dataset, build
from fedpeft_jax.data.readers.synthetic import (
    check_size,
    draw_lengths,
    synthetic_interactions,
)


def load_synthetic(
    seed: int = 0, num_users: int = 1000, num_items: int = 600
) -> Dataset:
    """Generates the synthetic data set, with titles, genres and planted preferences.

    See `synthetic_interactions` for how it is drawn.

    Args:
      seed: the seed of everything that is drawn.
      num_users: U, at least 1.
      num_items: I, at least 10.

    Returns:
      The data set, named ``synthetic``.

    Raises:
      InputError: for fewer users or items.

    Example:
      >>> data = load_synthetic(num_users=50, num_items=30)
      >>> data.num_users, data.num_items, int(data.items.counts.min())
      (50, 30, 5)
    """
    return build(synthetic_interactions(seed, num_users, num_items))


def generate_long_tailed(
    seed: int, num_users: int, num_items: int, mean_length: float = 20.0
) -> Dataset:
    """Generates random interactions at any scale, to measure time and memory.

    Popularity is a power law over items in random order, and history lengths are
    log-normal. Popularity is all that can be learned, and there is no text. Unlike in
    other data sets, the catalogue may hold items without an interaction.

    Args:
      seed: the seed of everything that is drawn.
      num_users: U, at least 1.
      num_items: I, at least 4.
      mean_length: mean number of items per user, at least 1, before lengths are clipped
        to [3, 2000] and to at most I - 1.

    Returns:
      The data set; original ids are 0, 1, 2, ...

    Raises:
      InputError: for fewer users or items, or a smaller mean length.

    Example:
      >>> data = generate_long_tailed(0, num_users=1000, num_items=500)
      >>> data.num_users, data.num_items, len(data.items.values) // 1000
      (1000, 500, 20)
    """
    check_size("users", num_users, 1)
    check_size("items", num_items, 4)
    check_size("interactions per user (mean_length)", mean_length, 1)
    rng = np.random.default_rng([seed, 2])
    lengths = draw_lengths(rng, num_users, mean_length, 3, min(2000, num_items - 1))

    # The inverse of a power law's distribution function: density ~ rank^(-2/3).
    ranks = (num_items * rng.random(lengths.sum()) ** 3).astype(np.int64)
    rows = Ragged.from_counts(ranks, lengths)
    places, starts = rows.positions, rows.owners * num_items
    ranks += starts
    ranks.sort()
    ranks -= starts
    # A repeated rank moves to the next free rank: with x sorted, x - place must not
    # fall. The starts keep the running maximum of one user apart from the next user.
    ranks += starts - places
    np.maximum.accumulate(ranks, out=ranks)
    np.minimum(ranks - starts, np.repeat(num_items - lengths, lengths), out=ranks)
    ranks += places
    del places, starts

    # Histories are in time order, so ranks must not ascend: shuffle within each user.
    mixed = rows.owners << 32
    mixed += rng.integers(1 << 32, size=len(mixed))
    order = np.argsort(mixed)
    del mixed
    items = rng.permutation(num_items).astype(np.int32)[ranks[order]]
    return Dataset(
        name=f"long-tailed-{num_users}x{num_items}",
        user_ids=np.arange(num_users),
        item_ids=np.arange(num_items),
        items=Ragged(items, rows.offsets),
        item_text=None,
    )
