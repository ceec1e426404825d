"""Cohorts have the distribution that an accountant assumes."""

import numpy as np
import pytest
from scipy import stats

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.sampling import (
    FixedCohorts,
    PoissonCohorts,
    check_sampling,
    most_participations,
)

ROUNDS = 4000
COHORTS = PoissonCohorts(num_clients=7, rate=0.3)


def joined():
    """Whether each client joins each cohort, bool[T, U]."""
    found = np.zeros((ROUNDS, 7), bool)
    for t in range(ROUNDS):
        found[t, COHORTS.draw(3, t)] = True
    return found


def test_clients_join_a_poisson_cohort_independently():
    # All 2^7 cohorts, against the product of seven probabilities.
    tally = np.bincount(joined() @ (1 << np.arange(7)), minlength=128)
    sizes = np.array([bin(cohort).count("1") for cohort in range(128)])
    expected = ROUNDS * 0.3**sizes * 0.7 ** (7 - sizes)
    common = expected >= 5
    observed = np.append(tally[common], tally[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_a_cohort_depends_on_seed_and_round_alone():
    again = [COHORTS.draw(3, t).tolist() for t in (5, 5, 6)]
    assert again[0] == again[1] != again[2]
    assert COHORTS.draw(4, 5).tolist() != again[0]


@pytest.mark.parametrize("cohorts", [COHORTS, FixedCohorts(7, 2)])
def test_the_largest_cohort_and_the_participations(cohorts):
    drawn = [cohorts.draw(1, t) for t in range(40)]
    assert cohorts.most(1, 40) == max(map(len, drawn))
    assert cohorts.most(1, 0) in (0, 2)
    found = most_participations(cohorts, 1, 40)
    for rounds in (0, 1, 40):
        so_far = np.concatenate([[], *drawn[:rounds]]).astype(int)
        assert found[rounds] == np.bincount(so_far, minlength=7).max()


def test_a_rate_of_one_draws_everybody():
    assert PoissonCohorts(5, 1.0).draw(0, 0).tolist() == [0, 1, 2, 3, 4]


def test_kinds_of_cohorts_are_never_equal():
    """Caches of epsilons have them as keys."""
    assert FixedCohorts(5, 1) != PoissonCohorts(5, 1)
    assert FixedCohorts(5, 1) == FixedCohorts(5, 1)


@pytest.mark.parametrize(
    "cohorts",
    [FixedCohorts(4, 0), FixedCohorts(4, 5), PoissonCohorts(4, 0.0)],
)
def test_cohorts_that_cannot_be_drawn(cohorts):
    with pytest.raises(InputError, match="`cohort_size` between 1 and 4"):
        check_sampling(cohorts)
