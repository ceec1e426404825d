"""How the cohort of each round is drawn from all clients.

Privacy is accounted for the object that draws the cohorts, so that the sampling of a
run and the sampling that its accountant assumes cannot differ.
"""

import dataclasses

import numpy as np

from fedpeft_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class FixedCohorts:
    """Cohorts of a fixed size, drawn uniformly without replacement.

    Attributes:
      num_clients: U, the number of clients.
      size: C, the number of clients in every cohort.

    Example:
      >>> FixedCohorts(num_clients=4, size=4).draw(seed=0, round_=7).tolist()
      [0, 1, 2, 3]
    """

    num_clients: int
    size: int

    @property
    def expected_size(self) -> float:
        """The expected number of clients in a cohort."""
        return float(self.size)

    @property
    def takes_everybody(self) -> bool:
        """Whether every client is in every cohort."""
        return self.size == self.num_clients

    def draw(self, seed: int, round_: int) -> np.ndarray:
        """Returns the cohort of one round: int64[C], ascending client ids.

        Args:
          seed: seed of the run.
          round_: index of the round, from 0. No other round changes the result.
        """
        generator = np.random.default_rng([seed, round_])
        drawn = generator.choice(
            self.num_clients, self.size, replace=False, shuffle=False
        )
        return np.sort(drawn)

    def most(self, seed: int, rounds: int) -> int:
        """Returns the size of the largest cohort of the first rounds."""
        del seed, rounds
        return self.size


@dataclasses.dataclass(frozen=True)
class PoissonCohorts:
    """Cohorts that every client joins independently, with the same probability.

    A cohort may be of any size, and may be empty.

    Attributes:
      num_clients: U, the number of clients.
      rate: q, the probability with which a client joins a cohort.

    Example:
      >>> cohorts = PoissonCohorts(num_clients=6, rate=0.5)
      >>> [cohorts.draw(seed=0, round_=t).tolist() for t in range(3)]
      [[1, 2, 5], [1, 2, 3, 4], [1]]
    """

    num_clients: int
    rate: float

    @property
    def expected_size(self) -> float:
        """The expected number of clients in a cohort."""
        return self.num_clients * self.rate

    @property
    def takes_everybody(self) -> bool:
        """Whether every client is in every cohort."""
        return self.rate == 1

    def draw(self, seed: int, round_: int) -> np.ndarray:
        """Returns the cohort of one round: int64[n], ascending client ids.

        The number of clients is drawn first, from a binomial distribution, and then
        that many clients are drawn without replacement. The distribution is that of
        independent draws, and the cost is that of the cohort alone.

        Args:
          seed: seed of the run.
          round_: index of the round, from 0. No other round changes the result.
        """
        generator, size = self._start(seed, round_)
        drawn = generator.choice(self.num_clients, size, replace=False, shuffle=False)
        return np.sort(drawn)

    def most(self, seed: int, rounds: int) -> int:
        """Returns the size of the largest cohort of the first rounds.

        Args:
          seed: seed of the run.
          rounds: the number of rounds.
        """
        return max((self._start(seed, t)[1] for t in range(rounds)), default=0)

    def _start(self, seed: int, round_: int) -> tuple[np.random.Generator, int]:
        generator = np.random.default_rng([seed, round_])
        return generator, int(generator.binomial(self.num_clients, self.rate))


CohortSampling = FixedCohorts | PoissonCohorts
"""An object that draws the cohort of any round, and that an accountant can read."""


def most_participations(sampling: CohortSampling, seed: int, rounds: int) -> np.ndarray:
    """Returns how often the client took part that did so most, after each round.

    Args:
      sampling: how cohorts are drawn.
      seed: seed of the run.
      rounds: T, the number of rounds.

    Returns:
      int64[T + 1], from 0 before the first round.

    Example:
      >>> most_participations(FixedCohorts(3, size=3), seed=0, rounds=2).tolist()
      [0, 1, 2]
    """
    counts = np.zeros(sampling.num_clients, np.int64)
    most = np.zeros(rounds + 1, np.int64)
    for t in range(rounds):
        cohort = sampling.draw(seed, t)
        counts[cohort] += 1
        most[t + 1] = max(most[t], counts[cohort].max(initial=0))
    return most


def check_sampling(sampling: CohortSampling) -> None:
    """Raises InputError for cohorts that cannot be drawn.

    Args:
      sampling: how cohorts are drawn.

    Example:
      >>> check_sampling(FixedCohorts(num_clients=3, size=4))
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: a cohort of 4 cannot be drawn from 3 clients: set
      `cohort_size` between 1 and 3
    """
    clients = sampling.num_clients
    if isinstance(sampling, FixedCohorts) and not 1 <= sampling.size <= clients:
        raise InputError(
            f"a cohort of {sampling.size} cannot be drawn from {clients} clients: "
            f"set `cohort_size` between 1 and {clients}"
        )
    if isinstance(sampling, PoissonCohorts) and not 0 < sampling.rate <= 1:
        raise InputError(
            f"a cohort of {sampling.expected_size:g} clients on average cannot be "
            f"drawn from {clients} clients: set `cohort_size` between 1 and {clients}"
        )
