"""How well an attack finds a client's items: AUC, precision, and their means."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Mean(NamedTuple):
    """A mean over victims.

    Attributes:
      value: the mean; NaN without victims.
      error: its standard error; NaN with fewer than two victims.
      victims: their number.
    """

    value: float
    error: float
    victims: int


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    r"""Returns the area under the ROC curve, with ties counted as one half.

    .. math:: P(s_i > s_j) + P(s_i = s_j) / 2

    for a positive i and a negative j, each drawn uniformly.

    Args:
      scores: float[n], higher means more likely positive.
      labels: bool[n], whether each item is positive.

    Returns:
      The area; NaN if there are no positives or no negatives.

    Example:
      >>> auc(np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, True, False, False]))
      0.875
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return math.nan
    _, group, size = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(size) - (size - 1) / 2)[group]
    won = ranks[labels].sum() - positives * (positives + 1) / 2
    return float(won / (positives * negatives))


def precision_at_positives(scores: np.ndarray, labels: np.ndarray) -> float:
    """Returns the share of positives among as many of the highest scores.

    Items that are tied at the last place count with the share of them that fits, which
    is the expectation over their order.

    Args:
      scores: float[n], higher means more likely positive.
      labels: bool[n], whether each item is positive.

    Returns:
      The precision; NaN if there are no positives.

    Example:
      >>> precision_at_positives(np.zeros(4), np.array([True, False, False, False]))
      0.25
    """
    positives = int(labels.sum())
    if not positives:
        return math.nan
    last = np.partition(scores, len(scores) - positives)[len(scores) - positives]
    above, tied = scores > last, scores == last
    room = positives - above.sum()
    return float((labels[above].sum() + room * labels[tied].mean()) / positives)


def mean_over_victims(values: Sequence[float]) -> Mean:
    """Returns the mean of one figure per victim, and its standard error.

    Args:
      values: one figure per victim; NaN is left out.

    Example:
      >>> mean_over_victims([1.0, 2.0, 3.0, math.nan])
      Mean(value=2.0, error=0.577..., victims=3)
    """
    found = np.asarray([x for x in values if not math.isnan(x)], np.float64)
    if not len(found):
        return Mean(math.nan, math.nan, 0)
    error = found.std(ddof=1) / math.sqrt(len(found)) if len(found) > 1 else math.nan
    return Mean(float(found.mean()), float(error), len(found))
