"""Ranking metrics as expectations over a uniformly random order of tied items.

A metric needs two numbers per client: `above`, how many items score strictly higher
than the target, and `ties`, how many other items score the same. The target is then
equally likely at each of the positions p = above, ..., above + ties (0 is first), and
every metric here is the mean over these positions. A constant score therefore has
exactly the metrics of a random order, and does not rank every target first.

The metrics are computed in float64 on the host, from ranks that the device returns.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma  # type: ignore[import-untyped, unused-ignore]

DEFAULT_KS = (5, 10, 20)


def hit_rate(above: ArrayLike, ties: ArrayLike, k: int) -> np.ndarray:
    """Returns the probability that the target is among the first k items.

    .. math:: clip((k - above) / (ties + 1), 0, 1)

    Args:
      above: int[E], items ranked strictly above the target.
      ties: int[E], other items tied with the target.
      k: length of the list, at least 1.

    Returns:
      float64[E], the hit rate of each client, in [0, 1].

    Raises:
      ValueError: if k < 1, or a count is negative or not an integer.

    Example:
      >>> hit_rate([0, 1, 2], [0, 1, 0], k=2)
      array([1. , 0.5, 0. ])
    """
    above, ties = _counts(above, ties)
    return np.clip((_positive(k) - above) / (ties + 1.0), 0.0, 1.0)


def ndcg(above: ArrayLike, ties: ArrayLike, k: int) -> np.ndarray:
    r"""Returns the expected normalised discounted cumulative gain (NDCG) at k.

    Each client has one relevant item, the target. The ideal gain is therefore 1, and
    the NDCG is the discount at the position of the target.

    .. math:: \frac{1}{ties + 1} \sum_{p = above}^{above + ties}
              \frac{[p < k]}{\log_2(p + 2)}

    Args:
      above: int[E], items ranked strictly above the target.
      ties: int[E], other items tied with the target.
      k: length of the list, at least 1.

    Returns:
      float64[E], the NDCG of each client, in [0, 1].

    Raises:
      ValueError: if k < 1, or a count is negative or not an integer.

    Example:
      >>> ndcg([0, 2, 2], [0, 0, 1], k=3)
      array([1.  , 0.5 , 0.25])

    Source:
      Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques, TOIS
      2002; ties as in McSherry and Najork, Computing information retrieval performance
      measures efficiently in the presence of tied scores, 2008.
    """
    above, ties = _counts(above, ties)
    discounts = 1.0 / np.log2(np.arange(_positive(k)) + 2.0)
    gains = np.concatenate([[0.0], np.cumsum(discounts)])
    first, last = np.minimum(above, k), np.minimum(above + ties + 1, k)
    return (gains[last] - gains[first]) / (ties + 1.0)


def mrr(above: ArrayLike, ties: ArrayLike) -> np.ndarray:
    r"""Returns the expected reciprocal rank of the target in the whole list.

    Its mean over clients is the mean reciprocal rank (MRR).

    .. math:: \frac{1}{ties + 1} \sum_{p = above}^{above + ties} \frac{1}{p + 1}
              = \frac{\psi(above + ties + 2) - \psi(above + 1)}{ties + 1}

    Args:
      above: int[E], items ranked strictly above the target.
      ties: int[E], other items tied with the target.

    Returns:
      float64[E], the reciprocal rank of each client, in (0, 1].

    Raises:
      ValueError: if a count is negative or not an integer.

    Example:
      >>> mrr([0, 1, 0], [0, 0, 1])
      array([1.  , 0.5 , 0.75])
    """
    above, ties = _counts(above, ties)
    mean = (digamma(above + ties + 2.0) - digamma(above + 1.0)) / (ties + 1.0)
    # The difference loses precision far down a large catalogue; without ties the exact
    # value needs no difference.
    return np.where(ties == 0, 1.0 / (above + 1.0), mean)


def summarize(
    ranks: tuple[ArrayLike, ArrayLike], ks: Sequence[int] = DEFAULT_KS
) -> dict[str, float]:
    """Returns the mean of every metric over clients.

    Args:
      ranks: (above, ties), int[E] each, E at least 1.
      ks: lengths of the list for the hit rate and the NDCG.

    Returns:
      A dictionary of `hit_rate@k` and `ndcg@k` for each k, and `mrr`.

    Raises:
      ValueError: if there is no client, k < 1, or a count is negative or not an
        integer.

    Example:
      >>> summarize(([0, 1], [0, 0]), ks=(1,))
      {'hit_rate@1': 0.5, 'ndcg@1': 0.5, 'mrr': 0.75}
    """
    above, ties = _counts(*ranks)
    if not above.size:
        raise ValueError("there is no client to average over: the ranks are empty")
    metrics: dict[str, float] = {}
    for k in ks:
        metrics[f"hit_rate@{k}"] = float(hit_rate(above, ties, k).mean())
        metrics[f"ndcg@{k}"] = float(ndcg(above, ties, k).mean())
    metrics["mrr"] = float(mrr(above, ties).mean())
    return metrics


def random_expectation(
    num_candidates: ArrayLike, ks: Sequence[int] = DEFAULT_KS
) -> dict[str, float]:
    r"""Returns the metrics of a uniformly random ranking, in closed form.

    A target that is tied with all of its n candidates, above = 0 and ties = n, has

    .. math:: hit\_rate@k = \min(\frac{k}{n + 1}, 1), \quad
              ndcg@k = \frac{1}{n + 1} \sum_{p = 0}^{\min(k, n + 1) - 1}
              \frac{1}{\log_2(p + 2)}, \quad
              mrr = \frac{1}{n + 1} \sum_{p = 0}^n \frac{1}{p + 1}

    Args:
      num_candidates: int or int[E], the number of items that the target competes with
        (itself not counted), for all clients or for each client.
      ks: lengths of the list for the hit rate and the NDCG.

    Returns:
      A dictionary of `hit_rate@k` and `ndcg@k` for each k, and `mrr`.

    Raises:
      ValueError: if there is no client, k < 1, or a count is negative or not an
        integer.

    Example:
      >>> random_expectation(99, ks=(10,))['hit_rate@10']
      0.1
    """
    ties = np.atleast_1d(np.asarray(num_candidates))
    return summarize((np.zeros_like(ties), ties), ks)


def _counts(above: ArrayLike, ties: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    above, ties = np.asarray(above), np.asarray(ties)
    if above.shape != ties.shape or above.ndim != 1:
        raise ValueError(
            "above and ties must be one count per client each, got shapes "
            f"{above.shape} and {ties.shape}"
        )
    for name, counts in (("above", above), ("ties", ties)):
        if counts.size and (
            not np.issubdtype(counts.dtype, np.integer) or counts.min() < 0
        ):
            raise ValueError(f"{name} must hold integers of at least 0")
    # In int64, above + ties cannot overflow; an empty list also becomes an
    # integer array.
    return above.astype(np.int64), ties.astype(np.int64)


def _positive(k: int) -> int:
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    return k
