r"""Metrics of several held-out items per client, as expectations over tied items.

The n held-out items of a client are ranked together with its other items. Each of them
is at a position that is uniform over above, ..., above + ties (0 is first), where both
counts include the other held-out items. Recall and DCG are sums over the held-out
items, so their expectations are exactly the sums of the expectations of `metrics`. Hit
rate and reciprocal rank depend on the first held-out item alone: it is the first of the
m held-out items among the T tied items of the best group that has one.

With one held-out item per client every metric is the one of `metrics`, and the recall
is the hit rate.
"""

from collections.abc import Sequence

import numpy as np

from fedpeft_jax.evaluation import metrics
from fedpeft_jax.evaluation.metrics import DEFAULT_KS

_LOG_NEGLIGIBLE = np.log(1e-18)


def recall(
    above: np.ndarray, ties: np.ndarray, counts: np.ndarray, k: int
) -> np.ndarray:
    r"""Returns the expected share of the held-out items among the first k items.

    .. math:: \frac{1}{n} \sum_{i=1}^n clip((k - above_i) / (ties_i + 1), 0, 1)

    Args:
      above: int[n], for each held-out item the items ranked strictly above it; those
        of one client follow each other.
      ties: int[n], the other items tied with it.
      counts: int[E], the held-out items of each client, at least 1.
      k: length of the list, at least 1.

    Returns:
      float64[E], the recall of each client, in [0, 1].

    Example:
      >>> above, ties = np.array([0, 3, 5]), np.array([0, 0, 1])
      >>> recall(above, ties, np.array([2, 1]), k=2)
      array([0.5, 0. ])

    Source:
      He et al., LightGCN: simplifying and powering graph convolution network for
      recommendation, SIGIR 2020.
    """
    return _sums(metrics.hit_rate(above, ties, k), counts) / counts


def ndcg(above: np.ndarray, ties: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    r"""Returns the expected normalised discounted cumulative gain (NDCG) at k.

    The ideal list begins with the held-out items:

    .. math:: \frac{\sum_{i=1}^n E[p_i < k] / \log_2(p_i + 2)}
              {\sum_{p=0}^{\min(k, n) - 1} 1 / \log_2(p + 2)}

    Args:
      above: as in `recall`.
      ties: as in `recall`.
      counts: as in `recall`.
      k: length of the list, at least 1.

    Returns:
      float64[E], the NDCG of each client, in [0, 1].

    Example:
      >>> ndcg(np.array([0, 2]), np.array([0, 0]), np.array([2]), k=3).round(3)
      array([0.92])
    """
    gains = _sums(metrics.ndcg(above, ties, k), counts)
    ideal = np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))
    return gains / ideal[np.minimum(counts, k) - 1]


def hit_rate(
    above: np.ndarray, ties: np.ndarray, counts: np.ndarray, k: int
) -> np.ndarray:
    r"""Returns the probability that a held-out item is among the first k items.

    If `above` items are above the best group, it has j = k - above places in the list:

    .. math:: 1 - \prod_{i=0}^{j - 1} \frac{T - m - i}{T - i}

    Args:
      above: as in `recall`.
      ties: as in `recall`.
      counts: as in `recall`.
      k: length of the list, at least 1.

    Returns:
      float64[E], the hit rate of each client, in [0, 1].

    Example:
      >>> hit_rate(np.array([0, 0]), np.array([2, 2]), np.array([2]), k=1).round(3)
      array([0.667])
    """
    best, tied, held = _best_groups(above, ties, counts)
    places = np.clip(k - best, 0, tied)
    missed = np.ones(len(counts))
    for i in range(min(k, int(places.max(initial=0)))):
        left = np.maximum(tied - held - i, 0) / np.maximum(tied - i, 1)
        missed = np.where(i < places, missed * left, missed)
    # The closed form of one item keeps its bits.
    return np.where(held == 1, metrics.hit_rate(best, tied - 1, k), 1.0 - missed)


def mrr(above: np.ndarray, ties: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Returns the expected reciprocal rank of the first held-out item.

    Args:
      above: as in `recall`.
      ties: as in `recall`.
      counts: as in `recall`.

    Returns:
      float64[E], the reciprocal rank of each client, in (0, 1].

    Example:
      >>> mrr(np.array([0, 0, 1]), np.array([2, 2, 0]), np.array([2, 1])).round(3)
      array([0.833, 0.5  ])
    """
    best, tied, held = _best_groups(above, ties, counts)
    result = metrics.mrr(best, tied - 1)
    shared = np.flatnonzero(held > 1)
    groups = np.stack([best[shared], tied[shared], held[shared]], axis=1)
    distinct, place = np.unique(groups, axis=0, return_inverse=True)
    values = np.array([_reciprocal_rank(*group) for group in distinct.tolist()])
    if len(shared):
        result[shared] = values[place.reshape(-1)]
    return result


def summarize(
    above: np.ndarray,
    ties: np.ndarray,
    counts: np.ndarray,
    ks: Sequence[int] = DEFAULT_KS,
) -> dict[str, float]:
    """Returns the mean of every metric over clients.

    Args:
      above: as in `recall`.
      ties: as in `recall`.
      counts: as in `recall`.
      ks: lengths of the list.

    Returns:
      A dictionary of `hit_rate@k`, `recall@k` and `ndcg@k` for each k, and `mrr`.

    Raises:
      ValueError: if there is no client.

    Example:
      >>> summarize(np.array([0, 1]), np.array([0, 0]), np.array([2]), ks=(1,))
      {'hit_rate@1': 1.0, 'recall@1': 0.5, 'ndcg@1': 1.0, 'mrr': 1.0}
    """
    if not len(counts):
        raise ValueError("there is no client to average over: the ranks are empty")
    found: dict[str, float] = {}
    for k in ks:
        for name, metric in (
            ("hit_rate", hit_rate),
            ("recall", recall),
            ("ndcg", ndcg),
        ):
            found[f"{name}@{k}"] = float(metric(above, ties, counts, k).mean())
    found["mrr"] = float(mrr(above, ties, counts).mean())
    return found


def _starts(counts: np.ndarray) -> np.ndarray:
    return np.cumsum(counts, dtype=np.int64) - counts


def _sums(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values, _starts(counts)) if len(counts) else np.zeros(0)


def _best_groups(
    above: np.ndarray, ties: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the best group of tied items that has a held-out item, of each client.

    Returns:
      int64[E] each: the items above the group, its size T, and its held-out items m.
    """
    if not len(counts):
        return (np.zeros(0, np.int64),) * 3
    starts = _starts(counts)
    best = np.minimum.reduceat(above, starts)
    among = above == np.repeat(best, counts)  # items with the same number above tie
    held = np.add.reduceat(among.astype(np.int64), starts)
    tied = np.maximum.reduceat(np.where(among, ties + 1, 0), starts)
    # Items whose scores are not numbers are last, each below the others.
    return best, np.maximum(tied, held), held


def _reciprocal_rank(above: int, tied: int, held: int) -> float:
    """Returns E[1 / (above + X + 1)] for X, the first of `held` among `tied` places."""
    # P(X > j) is below (1 - j / T)^m: what is beyond these places changes no digit.
    share = -np.expm1(_LOG_NEGLIGIBLE / held)
    last = min(tied - held, int(np.ceil(share * tied)))
    j = np.arange(last)
    # P(X = j + 1) / P(X = j)
    quotients = (tied - held - j) / (tied - 1.0 - j)
    odds = np.concatenate([[1.0], np.cumprod(quotients)]) * (held / tied)
    return float(np.sum(odds / (above + 1.0 + np.arange(last + 1))))
