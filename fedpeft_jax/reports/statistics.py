"""Paired comparisons of two rows of a report, by user and by seed.

Both rows rank the same test items against the same candidates, so that their metrics
are compared pair by pair. The comparison by user shows how certain a difference is for
these data. The comparison by seed shows how certain it is for the method, because
another seed gives another model.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

_RESAMPLES = 2000
_BATCH = 2**22  # numbers that the bootstrap holds at a time


class Difference(NamedTuple):
    """The mean of paired differences.

    Attributes:
      mean: the mean.
      low: lower end of the interval that has 95 % confidence.
      high: its upper end.
      p_value: of a paired t test of the mean against 0; 1 if nothing differs.
      pairs: the number of pairs.
    """

    mean: float
    low: float
    high: float
    p_value: float
    pairs: int


def compare_users(
    values: Sequence[np.ndarray], reference: Sequence[np.ndarray]
) -> Difference:
    r"""Compares two rows by the mean metric of every user over the seeds.

    .. math:: d_u = \bar m_u - \bar r_u, \quad \bar d = \frac{1}{U} \sum_u d_u

    The interval is the percentile bootstrap of the mean of d over users, and the p
    value is that of the t test for d.

    Args:
      values: float64[U] for every seed, a metric of each user.
      reference: float64[U] for every seed, that of the other row.

    Raises:
      ValueError: if the rows have different users.

    Example:
      >>> found = compare_users([np.arange(50) / 50 + 0.1], [np.arange(50) / 50])
      >>> print(f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]")
      0.10 [0.10, 0.10]

    Source:
      Efron and Tibshirani, An introduction to the bootstrap, 1993, chapter 13; for
      rankings, Sakai, Statistical reform in information retrieval?, SIGIR Forum 2014.
    """
    from scipy import stats

    means = [np.mean(np.stack(rows), axis=0) for rows in (values, reference)]
    if means[0].shape != means[1].shape:
        raise ValueError("both rows need the same users")
    differences = means[0] - means[1]
    mean, users = float(differences.mean()), len(differences)
    # SciPy warns where all differences are the same, for which rounding is not enough.
    if users < 2 or np.ptp(differences) <= 1e-12:
        return Difference(mean, mean, mean, float(abs(mean) <= 1e-12), users)
    interval = stats.bootstrap(
        (differences,),
        np.mean,
        n_resamples=_RESAMPLES,
        batch=max(_BATCH // users, 1),
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    ).confidence_interval
    p_value = float(stats.ttest_1samp(differences, 0.0).pvalue)
    return Difference(mean, float(interval.low), float(interval.high), p_value, users)


def compare_seeds(values: ArrayLike, reference: ArrayLike) -> Difference | None:
    """Compares two rows by their metric under the same seeds, with a paired t test.

    Args:
      values: float64[S], the metric of a row by seed.
      reference: float64[S], that of the other row.

    Returns:
      The difference; None for fewer than two seeds, or if no difference varies.

    Example:
      >>> found = compare_seeds([0.36, 0.37, 0.36], [0.33, 0.33, 0.34])
      >>> print(f"{found.mean:.3f}, p = {found.p_value:.2f}")
      0.030, p = 0.04

    Source:
      Student, The probable error of a mean, Biometrika 1908; `scipy.stats.ttest_rel`.
    """
    from scipy import stats

    first, second = np.asarray(values, float), np.asarray(reference, float)
    differences = first - second
    if len(differences) < 2 or np.ptp(differences) <= 1e-12:
        return None
    result = stats.ttest_rel(first, second)
    interval = result.confidence_interval(0.95)
    return Difference(
        float(differences.mean()),
        float(interval.low),
        float(interval.high),
        float(result.pvalue),
        len(differences),
    )


def holm(p_values: ArrayLike) -> np.ndarray:
    r"""Corrects the p values of several comparisons, step down after Holm.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min\{(n - j + 1)\, p_{(j)}, 1\}

    The probability that any difference that is none falls below a threshold is then at
    most the threshold, whatever the dependence between the comparisons.

    Args:
      p_values: float64[N].

    Returns:
      The corrected p values, float64[N], in the same order.

    Example:
      >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
      [0.03, 0.06, 0.06]

    Source:
      Holm, A simple sequentially rejective multiple test procedure, Scandinavian
      Journal of Statistics 1979.
    """
    values = np.asarray(p_values, float)
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return corrected
