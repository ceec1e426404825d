"""Items that a user's held-out item is ranked against in sampled evaluation.

Candidates are drawn without replacement by R. W. Floyd's algorithm (Bentley and Floyd,
"A sample of brilliance", CACM 1987) over the ranks of a user's unseen items, for all
users of a block at once; memory never grows with users x items.
"""

import numpy as np

from fedpeft_jax.data.dataset import Dataset
from fedpeft_jax.data.splits import Split, sort_within
from fedpeft_jax.errors import InputError

_BLOCK = 1 << 16  # users drawn at once: bounds the temporaries at a million users


def sample_candidates(
    dataset: Dataset, split: Split, num: int = 100, seed: int = 0
) -> np.ndarray:
    """Draws distinct items that each evaluated user has never interacted with.

    The ``r``-th unseen item of a user whose sorted history is ``p`` is
    ``r + #{k : p[k] - k <= r}``, so that a uniform set of ranks is a uniform set of
    unseen items.

    Args:
      dataset: histories; training, validation and test items all count as seen.
      split: a split of ``dataset``, which says who is evaluated.
      num: candidates a user.
      seed: fixes the draw.

    Returns:
      int32[E, num], row ``e`` for client ``split.evaluated[e]``: ascending items, and
      then -1 if fewer than ``num`` items are unseen.

    Raises:
      InputError: ``num`` is below 1.

    Example:
      >>> import polars as pl
      >>> from fedpeft_jax.data.dataset import build_dataset
      >>> from fedpeft_jax.data.splits import leave_one_out
      >>> rows = [(1, 0, 0), (1, 2, 1), (1, 4, 2), (2, 1, 0), (2, 3, 1)]
      >>> frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
      >>> data = build_dataset("tiny", frame)
      >>> sample_candidates(data, leave_one_out(data), num=3).tolist()
      [[1, 3, -1]]
    """
    if num < 1:
        raise InputError(f"sampled candidates must be at least 1 a user, got {num}")
    lengths = np.diff(dataset.offsets)
    owners = np.repeat(np.arange(dataset.num_users, dtype=np.int64), lengths)
    seen = sort_within(lengths, dataset.items, dataset.num_items)
    place = np.arange(len(seen)) - dataset.offsets[owners]
    # p[k] - k never decreases and stays below I, so with the user's own offset the
    # thresholds of all users ascend in one array, and one search serves them all.
    thresholds = owners * dataset.num_items + seen - place

    rng = np.random.default_rng(seed)
    evaluated = split.evaluated.astype(np.int64)
    result = np.empty((len(evaluated), num), np.int32)
    for start in range(0, len(evaluated), _BLOCK):
        users = evaluated[start : start + _BLOCK]
        unseen = dataset.num_items - lengths[users]
        ranks = _distinct_ranks(rng, unseen, num)
        found = np.searchsorted(
            thresholds, users[:, None] * dataset.num_items + ranks, side="right"
        )
        items = ranks + found - dataset.offsets[users][:, None]
        items[ranks >= unseen[:, None]] = -1
        result[start : start + _BLOCK] = items
    return result


def _distinct_ranks(
    rng: np.random.Generator, bounds: np.ndarray, num: int
) -> np.ndarray:
    """int64[B, num] distinct ranks below ``bounds`` [B], ascending in a row.

    A row with fewer than ``num`` ranks is 0, 1, 2, ..., beyond its bound.
    """
    ranks = np.empty((num, len(bounds)), np.int64)
    for step in range(num):
        newest = np.maximum(bounds - num, 0) + step
        drawn = rng.integers(0, newest, endpoint=True)
        # Floyd: the newest rank cannot have been drawn before, so it replaces a repeat.
        repeat = (ranks[:step] == drawn).any(axis=0)
        ranks[step] = np.where(repeat, newest, drawn)
    ranks[:, bounds < num] = np.arange(num)[:, None]
    return np.sort(ranks.T, axis=1)
