"""The items that a held-out item is ranked against in sampled evaluation.

Uniform candidates are drawn without replacement by R. W. Floyd's algorithm (Bentley and
Floyd, "A sample of brilliance", CACM 1987) over the ranks of a user's unseen items, for
all users of a block at once. Popular candidates are drawn by their number of training
interactions, one after the other, without those that were drawn before. Memory does not
grow with users x items.
"""

import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.ragged import sort_rows
from fedpeft_jax.data.dataset import Dataset
from fedpeft_jax.data.splits import Split

# Users per draw. It bounds temporary memory, and the draws depend on it.
_BLOCK = 1 << 16
_POPULAR_BLOCK = 1 << 13
_MOST_DRAWS = 8


def sample_candidates(
    dataset: Dataset,
    split: Split,
    num: int = 100,
    seed: int = 0,
    *,
    kind: str = "uniform",
    slots: int = 0,
) -> np.ndarray:
    """Draws distinct items that each evaluated user has never interacted with.

    The ``r``-th unseen item of a user whose sorted history is ``p`` is
    ``r + #{k : p[k] - k <= r}``, so a uniform set of ranks is a uniform set of unseen
    items.

    Args:
      dataset: histories; training, validation and test items all count as seen.
      split: a split of ``dataset``, which determines the evaluated users.
      num: candidates per user, at least 1.
      seed: the seed of the draw.
      kind: ``'uniform'``, or ``'popularity'``: with odds in proportion to the number of
        training interactions, so an item without any is never drawn.
      slots: draw from this many first items of the catalogue; 0 for all of it.

    Returns:
      int32[E, num], row ``e`` for client ``split.evaluated[e]``: ascending items, and
      then -1 if fewer than ``num`` items are unseen.

    Raises:
      InputError: if ``num`` is below 1, or ``slots`` is above the number of items.

    Example:
      >>> import polars as pl
      >>> from fedpeft_jax.data.dataset import build
      >>> from fedpeft_jax.data.readers.raw import Raw
      >>> from fedpeft_jax.data.splits import leave_one_out
      >>> rows = [(1, 0, 0), (1, 2, 1), (1, 4, 2), (2, 1, 0), (2, 3, 1)]
      >>> frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row")
      >>> data = build(Raw("tiny", frame))
      >>> sample_candidates(data, leave_one_out(data), num=3).tolist()
      [[1, 3, -1]]
    """
    if kind not in ("uniform", "popularity"):
        raise InputError(
            f"`candidates={kind!r}` is not known: use one of uniform, popularity"
        )
    if num < 1:
        raise InputError(f"`num_candidates={num}` must be at least 1")
    if slots > dataset.num_items:
        raise InputError(
            f"`negative_slots={slots}` is more than the catalogue of "
            f"{dataset.num_items} items: set it lower, or to 0 for the whole catalogue"
        )
    pool = slots or dataset.num_items
    seen = sort_rows(dataset.items, dataset.num_items)
    seen = seen.keep_values(seen.values < pool)
    pairs = seen.owners * pool + seen.values  # ascending

    rng = np.random.default_rng(seed)
    evaluated = split.evaluated.astype(np.int64)
    result = np.empty((len(evaluated), num), np.int32)
    if kind == "popularity":
        counts = np.bincount(split.train.values, minlength=dataset.num_items)[:pool]
        for start in range(0, len(evaluated), _POPULAR_BLOCK):
            users = evaluated[start : start + _POPULAR_BLOCK]
            drawn = _popular(rng, users, pairs, counts, num)
            result[start : start + _POPULAR_BLOCK] = drawn
        return result
    # p[k] - k never decreases and stays below I, so with the user's own offset the
    # thresholds of all users ascend in one array, and one search serves them all.
    thresholds = pairs - seen.positions
    for start in range(0, len(evaluated), _BLOCK):
        users = evaluated[start : start + _BLOCK]
        unseen = pool - seen.counts[users]
        ranks = _distinct_ranks(rng, unseen, num)
        found = np.searchsorted(thresholds, users[:, None] * pool + ranks, side="right")
        items = ranks + found - seen.offsets[users][:, None]
        items[ranks >= unseen[:, None]] = -1
        result[start : start + _BLOCK] = items
    return result


def _popular(
    rng: np.random.Generator,
    users: np.ndarray,
    pairs: np.ndarray,
    counts: np.ndarray,
    num: int,
) -> np.ndarray:
    """Draws int32[B, num] by counts [pool], until each row has enough items."""
    pool, cumulative = len(counts), np.cumsum(counts)
    result = np.full((len(users), num), -1, np.int64)
    possible = np.minimum(_num_unseen(users, pairs, counts), num)
    rows = np.flatnonzero(possible)
    for _ in range(_MOST_DRAWS):
        if not len(rows):  # also if no item of the pool has an interaction
            break
        draws = rng.integers(cumulative[-1], size=(len(rows), 2 * num))
        items = np.searchsorted(cumulative, draws, side="right")
        keys = users[rows, None] * pool + items
        place = np.minimum(np.searchsorted(pairs, keys), max(len(pairs) - 1, 0))
        seen = (pairs[place] == keys) if len(pairs) else np.zeros(keys.shape, bool)
        queue = np.concatenate([result[rows], np.where(seen, -1, items)], axis=1)
        result[rows] = _first_distinct(queue, num)
        rows = rows[(result[rows] >= 0).sum(axis=1) < possible[rows]]
    for row in rows:  # few unseen items are left, or unpopular ones: draw all at once
        unseen = counts.astype(float)
        first, last = np.searchsorted(
            pairs, [users[row] * pool, (users[row] + 1) * pool]
        )
        unseen[pairs[first:last] - users[row] * pool] = 0
        drawn = result[row][result[row] >= 0]
        unseen[drawn] = 0
        with np.errstate(divide="ignore"):
            keys = np.log(unseen) + rng.gumbel(size=pool)
        more = np.argsort(-keys)[: possible[row] - len(drawn)]
        result[row, : possible[row]] = np.concatenate([drawn, more])
    result[result < 0] = pool  # sorts last
    result.sort(axis=1)
    return np.where(result == pool, -1, result)


def _num_unseen(users: np.ndarray, pairs: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns int64[B], how many items with a count each user has not seen."""
    pool = len(counts)
    popular = pairs[counts[pairs % pool] > 0]
    ends = np.searchsorted(popular, np.stack([users, users + 1]) * pool)
    result: np.ndarray = (counts > 0).sum() - (ends[1] - ends[0])
    return result


def _first_distinct(queue: np.ndarray, num: int) -> np.ndarray:
    """Returns the first `num` distinct items of every row, in order; -1 is none."""
    order = np.argsort(queue, axis=1, kind="stable")
    ordered = np.take_along_axis(queue, order, axis=1)
    repeat = np.zeros(queue.shape, bool)
    repeat[:, 1:] = ordered[:, 1:] == ordered[:, :-1]
    gone = np.empty(queue.shape, bool)
    np.put_along_axis(gone, order, repeat | (ordered < 0), axis=1)
    front = np.argsort(gone, axis=1, kind="stable")[:, :num]
    kept = np.take_along_axis(queue, front, axis=1)
    return np.where(np.take_along_axis(gone, front, axis=1), -1, kept)


def _distinct_ranks(
    rng: np.random.Generator, bounds: np.ndarray, num: int
) -> np.ndarray:
    """Draws int64[B, num] distinct ranks below ``bounds`` [B], ascending in each row.

    A row with fewer than ``num`` ranks is 0, 1, 2, ..., also beyond its bound.
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
