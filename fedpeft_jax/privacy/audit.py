"""Lower bounds of epsilon, from scores of canaries of which half were in the data.

A mechanism that is (epsilon, delta)-differentially private bounds how well anybody can
tell the canaries that were in the data from those that were not:

    true positive rate <= exp(epsilon) * false positive rate + delta.

Rates that are measured therefore bound epsilon from below, whatever the accountant
assumed. The bounds are computed by the package jax-privacy (Google).
"""

import warnings
from typing import Any, NamedTuple

import numpy as np

from fedpeft_jax.core.bounds import Bounds, check_number
from fedpeft_jax.core.errors import InputError


class LowerBounds(NamedTuple):
    """Two lower bounds of epsilon.

    Attributes:
      any_mechanism: assumes nothing about the mechanism. It cannot exceed the logarithm
        of the number of canaries that are out, however little privacy there is.
      gaussian: assumes that the run as a whole is a Gaussian mechanism, from which it
        follows how rates that were not measured continue those that were. This is
        exact for Gaussian noise where everybody takes part in every round, and an
        approximation for sampled cohorts.
    """

    any_mechanism: float
    gaussian: float


def lower_bounds(
    in_scores: np.ndarray,
    out_scores: np.ndarray,
    *,
    delta: float,
    significance: float = 0.05,
) -> LowerBounds:
    """Returns lower bounds of epsilon from the scores of canaries.

    Each bound holds with probability 1 - significance, over the coins of the canaries
    and the noise, if the scores of different canaries are independent. The best of all
    thresholds on the score is taken, and the significance is corrected for that.

    Args:
      in_scores: float[m], scores of the canaries that were in. They should be larger
        than those of the others; if they are not, the bounds are weak, but hold.
      out_scores: float[n], scores of the canaries that were out.
      delta: the probability with which the bound on the privacy loss may fail.
      significance: the probability with which a lower bound may be above epsilon,
        below 1/2.

    Raises:
      InputError: a side has no canary, a number is out of range, or jax-privacy is
        missing.

    Source:
      Jagielski et al., Auditing differentially private machine learning, NeurIPS 2020
      (`any_mechanism`, with Clopper-Pearson intervals); Nasr et al., Tight auditing of
      differentially private machine learning, USENIX Security 2023 (`gaussian`).

    Example:
      >>> scores = np.random.default_rng(0).normal(size=2000)
      >>> found = lower_bounds(scores[:1000] + 1, scores[1000:], delta=0.01)
      >>> [round(bound, 1) for bound in found]  # the true epsilon is 2.3
      [1.0, 1.8]
    """
    check_number("delta", delta, Bounds(above=0, below=1))
    check_number("significance", significance, Bounds(above=0, below=0.5))
    if not (len(in_scores) and len(out_scores)):
        raise InputError(
            f"an audit needs canaries on both sides, and there are {len(in_scores)} "
            f"that are in and {len(out_scores)} that are out: add canaries"
        )
    auditor = import_auditing().CanaryScoreAuditor(in_scores, out_scores)
    return LowerBounds(
        float(auditor.epsilon_clopper_pearson(significance, delta)),
        float(auditor.epsilon_from_gdp(significance, delta)),
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
