"""The privacy that a run has spent.

The guarantee is (epsilon, delta)-differential privacy of one client's whole data:
whatever a client's data is, the probability of anything that the released sums show
changes by at most a factor exp(epsilon), up to delta. `events` says what the two
adjacencies compare; an epsilon means nothing without its adjacency. The numbers are
computed by the package dp-accounting (Google), and are upper bounds.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from fedpeft_jax.core.errors import InputError, brief
from fedpeft_jax.core.sampling import CohortSampling, PoissonCohorts
from fedpeft_jax.privacy.events import (
    check_accountable,
    import_dp_accounting,
    one_release,
)


class Accountant(NamedTuple):
    """Computes the epsilon of a run from the object that draws its cohorts.

    Attributes:
      mechanism: 'gaussian' (noise of standard deviation z C, where C bounds the L2 norm
        of an update) or 'laplace' (scale z C, where C bounds the L1 norm).
      model: 'central' (noise on the sum of a round) or 'local' (noise on the update of
        each participation, before it leaves the client).
      sampling: the object that draws the cohorts.
      adjacency: 'add_or_remove_one' or 'replace_one'; see `default_adjacency`.
      delta: the probability with which the bound on the privacy loss may fail.
      noise_multiplier: z, the noise relative to the clip C. It is never relative to 2C,
        whatever the adjacency.

    Example:
      >>> poisson = PoissonCohorts(num_clients=6040, rate=0.1)
      >>> spent = Accountant(
      ...     "gaussian", "central", poisson, "add_or_remove_one", 1e-5, 2.0
      ... )
      >>> f"{spent.epsilon(1000):.2f}", spent.max_count(8.0, at_most=1000)
      ('8.28', 943)
    """

    mechanism: str
    model: str
    sampling: CohortSampling
    adjacency: str
    delta: float
    noise_multiplier: float

    def epsilon(self, count: int) -> float:
        """Returns epsilon after some releases: 0 after none, infinite without noise.

        Args:
          count: under the central model the number of rounds; under the local model
            the number of participations of the client that took part most often.

        Raises:
          InputError: the combination cannot be accounted, delta is not between 0 and
            1, the noise multiplier is negative, or dp-accounting is missing.
        """
        return _epsilon(self.sampling, self, count)

    def max_count(self, max_epsilon: float, at_most: int) -> int:
        """Returns the largest count whose epsilon does not exceed a maximum.

        Args:
          max_epsilon: the largest epsilon.
          at_most: the largest count of interest.

        Raises:
          InputError: as in `epsilon`.
        """
        if self.epsilon(at_most) <= max_epsilon:
            return at_most
        fits, exceeds = 0, at_most
        while exceeds - fits > 1:
            middle = (fits + exceeds) // 2
            if self.epsilon(middle) <= max_epsilon:
                fits = middle
            else:
                exceeds = middle
        return fits


# Named tuples of two kinds are equal if their fields are: FixedCohorts(5, 1) and
# PoissonCohorts(5, 1.0). `typed` tells them apart in an argument of their own.
@functools.lru_cache(maxsize=1024, typed=True)
def _epsilon(sampling: CohortSampling, accountant: Accountant, count: int) -> float:
    del sampling
    _check(accountant, count)
    if count == 0:
        return 0.0
    if accountant.noise_multiplier == 0:
        return math.inf
    dp = import_dp_accounting()
    delta = accountant.delta
    name, relation, event = one_release(*accountant[:4], accountant.noise_multiplier)
    if name == "gaussian":
        return _gaussian_epsilon(event.noise_multiplier, count, delta)
    if name == "rdp":
        orders, divergences = _one_divergence(event, relation)
        epsilon = float(dp.rdp.compute_epsilon(orders, count * divergences, delta)[0])
        # Sampling never weakens the guarantee, so that the epsilon without sampling is
        # a bound, too. It is the smaller one for large cohorts and for little noise.
        unsampled = event.event.noise_multiplier
        return min(epsilon, _gaussian_epsilon(unsampled, count, delta))
    neighbours = dp.NeighboringRelation[relation]
    ledger = dp.pld.PLDAccountant(neighbours, _interval(accountant))
    with np.errstate(over="ignore"):  # of probabilities below the least float
        try:
            ledger.compose(dp.SelfComposedDpEvent(event, count))
            return float(ledger.get_epsilon(delta))
        except OverflowError:  # the loss of one release is beyond the largest float
            return math.inf


def _gaussian_epsilon(noise_multiplier: float, count: int, delta: float) -> float:
    """Epsilon of releases without sampling: k are one with sqrt(k) times less noise."""
    sigma = noise_multiplier / math.sqrt(count)
    return float(import_dp_accounting().get_epsilon_gaussian(sigma, delta))


@functools.lru_cache(maxsize=64)
def _one_divergence(event: Any, relation: str) -> tuple[np.ndarray, np.ndarray]:
    """The orders of the RDP accountant and the divergences of one release.

    They take half a second, and those of many releases are a multiple of them.
    """
    dp = import_dp_accounting()
    ledger = dp.rdp.RdpAccountant(None, dp.NeighboringRelation[relation])
    ledger.compose(event)
    return ledger._orders, ledger._rdp  # no public name gives them


def _interval(accountant: Accountant) -> float:
    """The step of the grid on which the PLD accountant holds privacy losses.

    The accountant rounds in the safe direction, so that a coarse grid makes epsilon
    larger, never too small. The step follows the spread of the loss of one release, but
    leaves at most ten thousand steps up to the largest loss that matters, which is a
    multiple of the step: Laplace noise reaches it with a positive probability.
    """
    z, sampling = accountant.noise_multiplier, accountant.sampling
    change = 1 if accountant.adjacency == "add_or_remove_one" else 2
    rate = 1.0
    if accountant.model == "central" and isinstance(sampling, PoissonCohorts):
        rate = sampling.rate
    loss = change / z  # the largest loss without sampling
    if accountant.mechanism == "gaussian":
        # All but 1e-16 of Gaussian noise is within 8.5 standard deviations.
        loss = 8.5 * change / z + change**2 / (2 * z**2)
    # log(1 - rate + rate exp(loss)), without overflow
    largest = loss + math.log(rate + (1 - rate) * math.exp(-loss))
    steps_per_deviation = 40 if accountant.mechanism == "gaussian" else 100
    steps = math.ceil(largest / (rate * change / z) * steps_per_deviation)
    return largest / min(steps, 10_000)


def _check(accountant: Accountant, count: int) -> None:
    check_accountable(*accountant[:4])
    if not 0 < accountant.delta < 1:
        raise InputError(
            f"`delta` is between 0 and 1, not {brief(accountant.delta)}: try "
            f"`delta=1e-5`, or one over the number of clients"
        )
    z = accountant.noise_multiplier
    if not (z >= 0 and math.isfinite(z)):
        raise InputError(f"a noise multiplier is at least 0, not {brief(z)}")
    if count < 0:
        raise ValueError(f"a count of releases is at least 0, not {count}")
