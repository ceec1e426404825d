"""How much noise keeps epsilon at a target, and how two queries share that noise."""

import math
from collections.abc import Callable

from fedpeft_jax.core.errors import InputError, brief
from fedpeft_jax.core.sampling import CohortSampling
from fedpeft_jax.privacy.accounting import Accountant
from fedpeft_jax.privacy.events import MECHANISMS

_RANGE = (1e-2, 1e6)  # of noise multipliers that `calibrate` tries
_CLOSE = 1e-3  # relative, to the smallest noise multiplier


def calibrate(
    target_epsilon: float,
    count: int,
    *,
    mechanism: str,
    model: str,
    sampling: CohortSampling,
    adjacency: str,
    delta: float,
) -> float:
    """Returns the smallest noise multiplier z whose epsilon is at most a target.

    The result keeps the target, and is within a factor 1.001 of the smallest one. It is
    at least 0.01, which is too little noise for any useful epsilon.

    Args:
      target_epsilon: the largest epsilon, above 0.
      count: rounds (central model) or most participations of a client (local model).
      mechanism: as in `Accountant`, as are the following.
      model: 'central' or 'local'.
      sampling: the object that draws the cohorts.
      adjacency: 'add_or_remove_one' or 'replace_one'.
      delta: the probability with which the bound may fail.

    Raises:
      InputError: no noise multiplier up to a million reaches the target, or as in
        `Accountant.epsilon`.

    Example:
      >>> from fedpeft_jax.core.sampling import PoissonCohorts
      >>> z = calibrate(
      ...     1.0, 1, mechanism="laplace", model="local", adjacency="replace_one",
      ...     sampling=PoissonCohorts(9, 0.5), delta=1e-9,
      ... )
      >>> f"{z:.2f}"  # pure differential privacy needs 2
      '2.00'
    """
    if not (target_epsilon > 0 and math.isfinite(target_epsilon)):
        raise InputError(
            f"`target_epsilon` is a finite number above 0, not {brief(target_epsilon)}"
        )

    accountant = Accountant(mechanism, model, sampling, adjacency, delta, 1.0)
    return _smallest_noise(
        lambda z: accountant._replace(noise_multiplier=z).epsilon(count), target_epsilon
    )


def update_noise(mechanism: str, noise_multiplier: float, count_noise: float) -> float:
    """Returns the noise multiplier of an update that shares a release with a count.

    Adaptive clipping releases, beside the sum of the updates, how many of them were
    below the clip. Each client adds +1/2 or -1/2 to this count. Both queries together
    are accounted as one release with the noise multiplier z if

        z_update = (z^-p - (2 count_noise)^-p)^(-1/p)

    where p = 2 for Gaussian noise and p = 1 for Laplace noise.

    Args:
      mechanism: 'gaussian' or 'laplace'.
      noise_multiplier: z, of both queries together; 0 is no privacy and returns 0.
      count_noise: standard deviation (Gaussian) or scale (Laplace) of the noise on the
        count, in clients.

    Raises:
      InputError: the noise on the count alone spends more than z allows.

    Example:
      >>> f"{update_noise('gaussian', 1.0, count_noise=30.2):.4f}"
      '1.0001'

    Source: Andrew et al., Differentially private learning with adaptive clipping,
      NeurIPS 2021 (arXiv 1905.03871), Theorem 1 for Gaussian noise. Laplace noise
      follows from the sum of the two L1 sensitivities, each relative to its noise.
    """
    if mechanism not in MECHANISMS:
        raise InputError(
            f"`privacy` is one of {', '.join(MECHANISMS)}, not {brief(mechanism)}"
        )
    if noise_multiplier == 0:
        return 0.0
    power = 2 if mechanism == "gaussian" else 1
    left = 1 - (noise_multiplier / (2 * count_noise)) ** power if count_noise else 0
    if left <= 0:
        raise InputError(
            f"noise of {count_noise:g} on the count of clipped updates spends all of "
            f"the privacy of a noise multiplier of {noise_multiplier:g}: the noise on "
            f"the count must be above {noise_multiplier / 2:g}"
        )
    return noise_multiplier * left ** (-1 / power)


def _smallest_noise(epsilon: Callable[[float], float], target: float) -> float:
    """The smallest noise multiplier with epsilon(z) <= target, see `calibrate`."""
    from scipy.optimize import brentq

    def excess(log_z: float) -> float:  # nearly a line
        spent = epsilon(math.exp(log_z))
        return math.log(min(max(spent / target, 1e-9), 1e9))

    least, most = (math.log(z) for z in _RANGE)
    low = high = 0.0
    while excess(high) > 0:
        if high == most:
            raise InputError(
                f"no noise keeps epsilon at most {target:g}: raise `target_epsilon` or "
                "`delta`, or lower `rounds`"
            )
        # Epsilon falls about as 1 / z, or faster.
        low, high = high, min(most, high + max(excess(high), 1))
    while low == high or excess(low) <= 0:
        if low == least:
            return math.exp(least)
        low, high = max(least, low - 1), low
    root = brentq(excess, low, high, xtol=_CLOSE / 4, rtol=1e-9)
    while excess(root) > 0:  # within xtol of the root, on either side
        root += _CLOSE / 4
    return math.exp(root)
