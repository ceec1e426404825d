"""What a run's privacy costs: noise from a target, epsilon by round, rounds left.

The accountant reads the object that draws the cohorts. Every round of every phase is
one release of the same mechanism, warm-up rounds and rounds after merges included. The
merge itself uses only what was released before.
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.sampling import CohortSampling, most_participations
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.privacy_settings import (
    PrivacySettings,
    make_mechanism,
    noises_each_client,
)
from fedpeft_jax.privacy.accounting import Accountant
from fedpeft_jax.privacy.calibration import calibrate
from fedpeft_jax.privacy.events import default_adjacency
from fedpeft_jax.privacy.mechanisms import Mechanism

_NOISED = 2**25  # numbers that the clients of a tile noise on their own, 128 MiB


class PrivacyPlan(NamedTuple):
    """The privacy of a run.

    Attributes:
      mechanism: the mechanism, with its noise multiplier.
      accountant: turns a number of releases into epsilon.
      releases: int64[T + 1], the releases of the data of one client after each number
        of rounds: the rounds in the central model, and in the local model the
        participations of the client that took part most.
      allowed: the most rounds that do not exceed `max_epsilon`.
      each_client: whether every client's own noise is drawn, and not the sum of the
        noises of a cohort, because stages of the upload follow it.
    """

    mechanism: Mechanism
    accountant: Accountant
    releases: np.ndarray
    allowed: int
    each_client: bool = False

    def epsilon(self, rounds: int) -> float:
        """Returns epsilon after some rounds, which may be infinite."""
        return self.accountant.epsilon(int(self.releases[rounds]))

    def entry(self, rounds: int) -> dict[str, Any]:
        """Returns the guarantee after some rounds, for `metrics.jsonl`."""
        epsilon = self.epsilon(rounds)
        return {
            "epsilon": epsilon if math.isfinite(epsilon) else None,
            "delta": self.accountant.delta,
        }


def plan_privacy(config: RunConfig, num_clients: int) -> PrivacyPlan | None:
    """Returns the privacy of a run; None for a run without differential privacy.

    Args:
      config: the configuration.
      num_clients: U, the number of clients.

    Raises:
      InputError: if no accountant takes the run, a target cannot be met, or the first
        round alone exceeds `max_epsilon`.

    Example:
      >>> from fedpeft_jax import configure
      >>> config = configure(privacy="gaussian(noise_multiplier=2.0)", rounds=100)
      >>> plan = plan_privacy(config, num_clients=1000)
      >>> plan.accountant.adjacency, round(plan.epsilon(100), 2)
      ('add_or_remove_one', 2.34)
    """
    if config.privacy.privacy == "none":
        return None
    plan = _plan(
        config.privacy,
        config.sampling(num_clients),
        config.run.seed,
        config.run.rounds,
    )
    each_client = noises_each_client(config.privacy, config.training)
    return plan._replace(each_client=each_client)


def client_chunk(config: RunConfig, num_items: int) -> int:
    """Returns the most clients that train at once; 0 for no bound.

    Args:
      config: the configuration. If every client noises its own dense update, the
        updates of a tile hold at most 128 MiB, or one client.
      num_items: I, the number of items.
    """
    given = config.run.client_chunk
    if not noises_each_client(config.privacy, config.training):
        return given
    most = max(1, _NOISED // (num_items * config.model.features))
    return min(given or most, most)


@functools.lru_cache(maxsize=4)
def _plan(
    settings: PrivacySettings, sampling: CohortSampling, seed: int, rounds: int
) -> PrivacyPlan:
    mechanism = make_mechanism(settings)
    assert mechanism is not None
    model, delta = settings.privacy_model, settings.delta
    adjacency = settings.adjacency or default_adjacency(model, sampling)
    releases = np.arange(rounds + 1)
    if model == "local":
        releases = most_participations(sampling, seed, rounds)
    z = mechanism.noise_multiplier
    if z is None:
        assert settings.target_epsilon is not None
        z = calibrate(
            settings.target_epsilon,
            mechanism=mechanism.name,
            model=model,
            sampling=sampling,
            adjacency=adjacency,
            delta=delta,
            count=int(releases[-1]),
        )
    accountant = Accountant(
        mechanism=mechanism.name,
        model=model,
        sampling=sampling,
        adjacency=adjacency,
        delta=delta,
        noise_multiplier=z,
    )
    allowed = rounds
    if settings.max_epsilon is not None:
        most = accountant.max_count(settings.max_epsilon, int(releases[-1]))
        allowed = int(np.searchsorted(releases, most, side="right")) - 1
        if not allowed:
            raise InputError(
                f"one round alone has an epsilon of {accountant.epsilon(1):.3g}, above "
                f"`max_epsilon={settings.max_epsilon}`: raise the noise_multiplier of "
                "`privacy`, or `max_epsilon`"
            )
    return PrivacyPlan(
        mechanism._replace(noise_multiplier=z), accountant, releases, allowed
    )
