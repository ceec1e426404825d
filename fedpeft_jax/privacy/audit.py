"""Lower bounds of epsilon, from scores of canaries of which half were in the data.

A mechanism that is (epsilon, delta)-differentially private bounds how well anybody can
tell the canaries that were in the data from those that were not:

    true positive rate <= exp(epsilon) * false positive rate + delta.

Rates that are measured therefore bound epsilon from below, whatever the accountant
assumed. Every bound here holds with probability 1 - significance, over the coins that
decided which canaries were in and over the noise, if the scores of different canaries
are independent.
"""

import warnings
from typing import Any

import numpy as np

from fedpeft_jax.core.bounds import Bounds, check_number
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.privacy.events import import_dp_accounting


def lower_bound(
    in_scores: np.ndarray,
    out_scores: np.ndarray,
    *,
    delta: float,
    significance: float = 0.05,
) -> float:
    """Returns a lower bound of epsilon that assumes nothing about the mechanism.

    The best of all thresholds on the score is taken, and the significance is corrected
    for that. The bound cannot exceed the logarithm of the number of canaries that are
    out, however little privacy there is.

    Args:
      in_scores: float[m], scores of the canaries that were in. They should be larger
        than those of the others; if they are not, the bound is weak, but holds.
      out_scores: float[n], scores of the canaries that were out.
      delta: the probability with which the bound on the privacy loss may fail.
      significance: the probability with which the lower bound may be above epsilon,
        below 1/2.

    Raises:
      InputError: a side has no canary, a number is out of range, or jax-privacy is
        missing.

    Source:
      Jagielski et al., Auditing differentially private machine learning, NeurIPS 2020,
      computed by the package jax-privacy (Google).

    Example:
      >>> scores = np.random.default_rng(0).normal(size=2000)
      >>> found = lower_bound(scores[:1000] + 1, scores[1000:], delta=0.01)
      >>> round(found, 1)  # the true epsilon is 2.3
      1.0
    """
    _check(in_scores, out_scores, delta, significance)
    auditor = import_auditing().CanaryScoreAuditor(in_scores, out_scores)
    return float(auditor.epsilon_clopper_pearson(significance, delta))


def gaussian_lower_bound(
    in_scores: np.ndarray,
    out_scores: np.ndarray,
    *,
    threshold: float,
    delta: float,
    significance: float = 0.05,
) -> float:
    r"""Returns a lower bound of epsilon of a run that is one Gaussian mechanism.

    .. math:: \mu = \Phi^{-1}(1 - \mathrm{FPR}) - \Phi^{-1}(\mathrm{FNR})

    The noise of such a run, relative to what a client changes, follows from the rates
    at one threshold, and epsilon follows from the noise for every delta. The bound is
    therefore much closer than that of `lower_bound`. The run is one Gaussian mechanism
    if the noise is Gaussian and everybody takes part in every round.

    Args:
      in_scores: float[m], scores of the canaries that were in.
      out_scores: float[n], scores of the canaries that were out.
      threshold: the score from which a canary is said to be in. It must not depend on
        the scores.
      delta: the probability with which the bound on the privacy loss may fail.
      significance: the probability with which the lower bound may be above epsilon,
        below 1/2.

    Raises:
      InputError: a side has no canary, a number is out of range, or dp-accounting is
        missing.

    Source:
      Nasr et al., Tight auditing of differentially private machine learning, USENIX
      Security 2023; Dong, Roth and Su, Gaussian differential privacy, JRSS B 2022.

    Example:
      >>> scores = np.random.default_rng(0).normal(size=2000)
      >>> found = gaussian_lower_bound(
      ...     scores[:1000] + 1, scores[1000:], threshold=0.5, delta=0.01
      ... )
      >>> round(found, 1)  # the true epsilon is 2.3
      1.7
    """
    from scipy import stats

    _check(in_scores, out_scores, delta, significance)
    # One bound for each rate, which share the significance. jax-privacy's
    # `epsilon_from_gdp` takes the absolute value of mu, which is no lower bound where
    # the bounds of the rates add up to more than 1.
    wrong = np.sum(in_scores < threshold), np.sum(out_scores >= threshold)
    rates = [
        stats.beta.ppf(1 - significance / 2, k + 1, n - k) if k < n else 1.0
        for k, n in zip(wrong, (len(in_scores), len(out_scores)), strict=True)
    ]
    mu = float(-stats.norm.ppf(rates).sum())
    if mu <= 0:
        return 0.0
    return float(import_dp_accounting().get_epsilon_gaussian(1 / mu, delta))


def _check(
    in_scores: np.ndarray, out_scores: np.ndarray, delta: float, significance: float
) -> None:
    check_number("delta", delta, Bounds(above=0, below=1))
    check_number("significance", significance, Bounds(above=0, below=0.5))
    if not (len(in_scores) and len(out_scores)):
        raise InputError(
            f"an audit needs canaries on both sides, and there are {len(in_scores)} "
            f"that are in and {len(out_scores)} that are out: add canaries"
        )


def import_auditing() -> Any:
    """Returns the module of jax-privacy, which is slow to import and optional.

    Raises:
      InputError: the package is not installed.
    """
    try:
        with warnings.catch_warnings():
            # Its dependencies use names that newer versions of JAX will remove.
            warnings.simplefilter("ignore", DeprecationWarning)
            import jax_privacy.auditing
    except ImportError as error:
        raise InputError(
            "an audit needs jax-privacy: pip install 'fedpeft_jax[audit]'"
        ) from error
    return jax_privacy.auditing
