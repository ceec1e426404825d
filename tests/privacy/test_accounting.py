"""Epsilons against closed forms, numerical integrals and dp-accounting's examples."""

import math
import sys

import dp_accounting as dp
import numpy as np
import pytest
from scipy import stats

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.sampling import FixedCohorts, PoissonCohorts
from fedpeft_jax.privacy.accounting import Accountant
from fedpeft_jax.privacy.calibration import calibrate, update_noise
from fedpeft_jax.privacy.events import (
    check_accountable,
    default_adjacency,
    event_noise,
    one_release,
)

DELTA = 1e-5
POISSON = PoissonCohorts(6040, 0.1)
FIXED = FixedCohorts(6040, 604)
ADDED, REPLACED = "add_or_remove_one", "replace_one"


def accountant(z=2.0, mechanism="gaussian", model="central", **others):
    sampling = others.pop("sampling", POISSON)
    adjacency = others.pop("adjacency", default_adjacency(model, sampling))
    delta = others.pop("delta", DELTA)
    assert not others
    return Accountant(mechanism, model, sampling, adjacency, delta, z)


@pytest.mark.parametrize(
    ("sampling", "adjacency", "epsilon"),
    [(POISSON, ADDED, 8.279), (POISSON, REPLACED, 17.685), (FIXED, REPLACED, 63.066)],
)
def test_a_thousand_rounds(sampling, adjacency, epsilon):
    spent = accountant(sampling=sampling, adjacency=adjacency).epsilon(1000)
    assert spent == pytest.approx(epsilon, rel=2e-4)


def test_a_hundred_local_participations():
    spent = accountant(mechanism="laplace", model="local")  # 2 / z = 1
    assert spent.epsilon(100) == pytest.approx(68.25, rel=1e-4)


def gaussian_delta(epsilon, change, sigma):
    """Balle and Wang (2018), Theorem 8."""
    a, b = change / (2 * sigma), epsilon * sigma / change
    return stats.norm.cdf(a - b) - math.exp(epsilon) * stats.norm.cdf(-a - b)


@pytest.mark.parametrize(
    ("model", "sampling", "adjacency", "change"),
    [
        ("central", PoissonCohorts(50, 1.0), ADDED, 1),
        ("central", PoissonCohorts(50, 1.0), REPLACED, 2),
        ("central", FixedCohorts(50, 50), REPLACED, 2),
        ("local", PoissonCohorts(50, 0.1), REPLACED, 2),
        ("local", FixedCohorts(50, 5), REPLACED, 2),
    ],
)
def test_gaussian_noise_without_sampling(model, sampling, adjacency, change):
    spent = accountant(3.0, model=model, sampling=sampling, adjacency=adjacency)
    for count in (1, 9):
        delta = gaussian_delta(spent.epsilon(count), change * math.sqrt(count), 3.0)
        assert delta == pytest.approx(DELTA, rel=1e-6)


@pytest.mark.parametrize("adjacency", [ADDED, REPLACED])
def test_a_rate_of_nearly_one_is_no_sampling(adjacency):
    # The accountant of sampled releases applies replace-one's factor 2 elsewhere.
    almost, full = (
        accountant(sampling=PoissonCohorts(50, q), adjacency=adjacency)
        for q in (1 - 1e-7, 1.0)
    )
    assert almost.epsilon(3) == pytest.approx(full.epsilon(3), rel=2e-3)


@pytest.mark.parametrize(
    ("mechanism", "adjacency"),
    [("gaussian", ADDED), ("gaussian", REPLACED), ("laplace", ADDED)],
)
@pytest.mark.parametrize(("rate", "z"), [(0.1, 1.0), (0.5, 3.0)])
def test_one_poisson_round_by_integration(mechanism, adjacency, rate, z):
    spent = accountant(
        z, mechanism, sampling=PoissonCohorts(50, rate), adjacency=adjacency
    )
    epsilon = spent.epsilon(1)
    x, step = np.linspace(-1 - 40 * z, 1 + 40 * z, 2_000_001, retstep=True)
    density = (stats.norm if mechanism == "gaussian" else stats.laplace)(scale=z).pdf
    without = density(x)
    with_one = (1 - rate) * without + rate * density(x - 1)
    if adjacency == REPLACED:
        without = (1 - rate) * without + rate * density(x + 1)
    delta = max(
        np.maximum(p - math.exp(epsilon) * q, 0).sum() * step
        for p, q in ((without, with_one), (with_one, without))
    )
    assert 0.9 * DELTA < delta < 1.0001 * DELTA


def test_one_laplace_participation():
    # delta = 1 - exp((epsilon - epsilon_0) / 2)
    for z in (0.5, 2.0, 30.0):
        spent = accountant(z, "laplace", "local", delta=1e-3)
        expected = 2 / z + 2 * math.log1p(-1e-3)
        assert expected - 1e-9 < spent.epsilon(1) < expected * 1.00001


def test_laplace_composes_to_less_than_the_sum():
    spent = accountant(4.0, "laplace", "local", delta=1e-10)
    assert spent.epsilon(1) == pytest.approx(0.5, rel=1e-6)
    assert spent.epsilon(2) == pytest.approx(1.0, rel=1e-6)
    assert spent.epsilon(1) < spent.epsilon(100) < 100 * 0.5


def test_the_published_example_of_dp_accounting():
    # pld/privacy_loss_distribution_basic_example.py
    spent = accountant(
        3.0, "laplace", sampling=PoissonCohorts(9, 1.0), delta=1.7856053216424267e-06
    )
    assert spent.epsilon(40) == pytest.approx(10, rel=1e-4)


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
def test_the_coarse_grid_is_safe_and_close(mechanism):
    spent = accountant(5.0, mechanism)
    fine = dp.pld.PLDAccountant(dp.NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-4)
    fine.compose(one_release(*spent[:4], 5.0).event, 300)
    exact = fine.get_epsilon(DELTA)
    assert exact * (1 - 1e-5) < spent.epsilon(300) < exact * 1.001


def test_divergences_add_up():
    spent = accountant(sampling=FIXED)
    name, relation, event = one_release(*spent[:4], 2.0)
    official = dp.rdp.RdpAccountant(None, dp.NeighboringRelation[relation])
    official.compose(dp.SelfComposedDpEvent(event, 50))
    assert name == "rdp"
    assert spent.epsilon(50) == pytest.approx(official.get_epsilon(DELTA), rel=1e-9)


def test_replace_one_doubles_once():
    assert event_noise(2.0, "pld", "REPLACE_ONE") == 2.0  # doubled by the accountant
    assert event_noise(2.0, "rdp", "REPLACE_ONE") == 1.0
    assert event_noise(2.0, "pld", "REPLACE_SPECIAL") == 1.0
    assert event_noise(2.0, "gaussian", "REPLACE_SPECIAL") == 1.0
    assert event_noise(2.0, "pld", "ADD_OR_REMOVE_ONE") == 2.0
    fixed = one_release("gaussian", "central", FIXED, REPLACED, 2.0)
    assert fixed.event == dp.SampledWithoutReplacementDpEvent(
        6040, 604, dp.GaussianDpEvent(1.0)
    )
    poisson = one_release("gaussian", "central", POISSON, REPLACED, 2.0)
    assert poisson.event == dp.PoissonSampledDpEvent(0.1, dp.GaussianDpEvent(2.0))
    assert poisson.relation == "REPLACE_ONE"


def test_fixed_cohorts_hide_no_more_than_poisson_cohorts():
    # Where all other clients send zero, both release the same under replace-one. This
    # fails for an accountant of fixed cohorts that forgets the factor 2.
    fixed = accountant(sampling=FixedCohorts(10, 9))
    poisson = accountant(sampling=PoissonCohorts(10, 0.9), adjacency=REPLACED)
    assert poisson.epsilon(20) < fixed.epsilon(20) < 1.2 * poisson.epsilon(20)


@pytest.mark.parametrize(
    ("mechanism", "model", "sampling"),
    [
        ("gaussian", "central", POISSON),
        ("laplace", "central", POISSON),
        ("laplace", "local", FIXED),
        ("gaussian", "local", FIXED),
    ],
)
def test_epsilon_grows_with_count_and_falls_with_noise(mechanism, model, sampling):
    def epsilon(z, count):
        return accountant(z, mechanism, model, sampling=sampling).epsilon(count)

    by_count = [epsilon(2.0, count) for count in (0, 1, 10, 100)]
    by_noise = [epsilon(z, 10) for z in (0.0, 0.3, 3.0, 300.0)]
    assert by_count == sorted(set(by_count)) and by_count[0] == 0
    assert by_noise == sorted(set(by_noise), reverse=True) and by_noise[0] == math.inf


@pytest.mark.parametrize(
    ("mechanism", "model", "sampling", "adjacency", "remedy"),
    [
        ("gaussian", "central", FIXED, ADDED, "cohort=poisson.*adjacency=replace_one"),
        ("laplace", "central", FIXED, REPLACED, "cohort=poisson"),
        ("laplace", "central", POISSON, REPLACED, "adjacency=add_or_remove_one"),
        ("laplace", "local", POISSON, ADDED, "adjacency=replace_one"),
        ("gaussian", "local", FIXED, ADDED, "adjacency=replace_one"),
        ("cauchy", "central", POISSON, ADDED, "gaussian, laplace"),
        ("gaussian", "shuffled", POISSON, ADDED, "central, local"),
        ("gaussian", "central", POISSON, "substitute", "replace_one"),
        ("gaussian", "central", FixedCohorts(5, 6), REPLACED, "cohort_size"),
    ],
)
def test_what_no_accountant_takes(mechanism, model, sampling, adjacency, remedy):
    with pytest.raises(InputError, match=remedy):
        check_accountable(mechanism, model, sampling, adjacency)
    with pytest.raises(InputError, match=remedy):
        Accountant(mechanism, model, sampling, adjacency, DELTA, 1.0).epsilon(0)


@pytest.mark.parametrize("adjacency", [ADDED, REPLACED])
@pytest.mark.parametrize("model", ["central", "local"])
@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
@pytest.mark.parametrize(
    "sampling", [POISSON, FIXED, FixedCohorts(9, 9), PoissonCohorts(9, 1.0)]
)
def test_what_passes_the_check_is_accounted(mechanism, model, sampling, adjacency):
    try:
        check_accountable(mechanism, model, sampling, adjacency)
    except InputError:
        return
    spent = Accountant(mechanism, model, sampling, adjacency, DELTA, 2.0)
    assert 0 < spent.epsilon(1) < 10


def test_the_defaults_can_be_accounted():
    assert default_adjacency("central", POISSON) == ADDED
    assert default_adjacency("central", FIXED) == REPLACED
    assert default_adjacency("local", POISSON) == REPLACED


def test_numbers_out_of_range():
    for delta in (0.0, 1.0, math.nan):
        with pytest.raises(InputError, match="delta=1e-5"):
            accountant(delta=delta).epsilon(1)
    for z in (-1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="noise multiplier"):
            accountant(z).epsilon(1)


def test_kinds_of_cohorts_do_not_share_an_epsilon():
    """Their fields are equal, and so are the hashes with which results are cached."""
    fixed, poisson = FixedCohorts(5, 1), PoissonCohorts(5, 1.0)
    small, all_ = (
        accountant(sampling=sampling, adjacency=REPLACED).epsilon(1)
        for sampling in (fixed, poisson)
    )
    assert small < 0.8 * all_


def test_noise_that_is_too_small_for_an_epsilon():
    assert accountant(0.001, mechanism="laplace").epsilon(10) == math.inf


def test_a_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(InputError, match=r"pip install 'fedpeft_jax\[dp\]'"):
        accountant(1.2345).epsilon(1)


@pytest.mark.parametrize(
    ("mechanism", "model"), [("gaussian", "central"), ("laplace", "local")]
)
def test_max_count_is_the_largest(mechanism, model):
    maximum, spent = 2.0, accountant(9.0, mechanism, model)
    count = spent.max_count(maximum, at_most=5000)
    assert 0 < count < 5000
    assert spent.epsilon(count) <= maximum < spent.epsilon(count + 1)


def test_max_count_at_the_ends():
    assert accountant().max_count(1e3, at_most=500) == 500
    assert accountant().max_count(1e-3, at_most=500) == 0
    assert accountant(0.0).max_count(1e3, at_most=500) == 0
    assert accountant().max_count(1.0, at_most=0) == 0


@pytest.mark.parametrize(
    ("target", "mechanism", "model", "sampling", "adjacency"),
    [
        (1.0, "gaussian", "central", POISSON, ADDED),
        (20.0, "laplace", "central", POISSON, ADDED),
        (8.0, "gaussian", "central", FixedCohorts(9, 9), REPLACED),
        (0.3, "laplace", "local", FIXED, REPLACED),
        (200.0, "laplace", "local", FIXED, REPLACED),
        (0.3, "gaussian", "local", FIXED, REPLACED),
        (200.0, "gaussian", "local", FIXED, REPLACED),
    ],
)
def test_calibrated_noise_is_the_smallest(
    target, mechanism, model, sampling, adjacency
):
    z = calibrate(
        target,
        100,
        mechanism=mechanism,
        model=model,
        sampling=sampling,
        adjacency=adjacency,
        delta=DELTA,
    )
    spent = Accountant(mechanism, model, sampling, adjacency, DELTA, z)
    assert spent.epsilon(100) <= target
    assert spent._replace(noise_multiplier=z / 1.001).epsilon(100) > target


@pytest.mark.slow
def test_calibration_of_fixed_cohorts_finds_the_known_noise():
    fixed = dict(mechanism="gaussian", model="central", adjacency=REPLACED)
    z = calibrate(63.066, 1000, sampling=FIXED, delta=DELTA, **fixed)
    assert z == pytest.approx(2.0, rel=1.1e-3)


def test_calibration_at_the_ends():
    local = dict(
        mechanism="gaussian",
        model="local",
        sampling=FIXED,
        adjacency=REPLACED,
        delta=DELTA,
    )
    assert calibrate(1e9, 1, **local) == pytest.approx(0.01)
    with pytest.raises(InputError, match="target_epsilon"):
        calibrate(1e-6, 10**9, **{**local, "delta": 1e-12})
    for target in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="target_epsilon"):
            calibrate(target, 1, **local)


def test_the_noise_of_an_update_beside_a_count():
    z = update_noise("gaussian", 1.0, count_noise=1.0)
    assert z == pytest.approx(math.sqrt(4 / 3))
    assert z**-2 + (2 * 1.0) ** -2 == pytest.approx(1.0)
    assert update_noise("laplace", 1.0, count_noise=1.0) == pytest.approx(2.0)
    assert update_noise("laplace", 0.7, count_noise=math.inf) == 0.7
    assert update_noise("laplace", 0.0, count_noise=1.0) == 0.0


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
@pytest.mark.parametrize("count_noise", [0.0, 0.3, 0.5])
def test_a_count_that_spends_everything(mechanism, count_noise):
    with pytest.raises(InputError, match="above 0.5"):
        update_noise(mechanism, 1.0, count_noise)
    assert update_noise(mechanism, 1.0, 0.51) > 1


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
@pytest.mark.parametrize("delta", [1e-2, 1e-5])
def test_both_queries_spend_what_one_release_is_accounted_for(mechanism, delta):
    event = dp.GaussianDpEvent if mechanism == "gaussian" else dp.LaplaceDpEvent

    def epsilon(*noise_multipliers):
        ledger = dp.pld.PLDAccountant(value_discretization_interval=1e-3)
        for z in noise_multipliers:
            ledger.compose(event(z))
        return ledger.get_epsilon(delta)

    for z, count_noise in ((1.0, 0.8), (3.0, 2.0)):
        both = epsilon(update_noise(mechanism, z, count_noise), 2 * count_noise)
        assert both <= epsilon(z) + 1e-3
        if mechanism == "gaussian":
            assert both == pytest.approx(epsilon(z), abs=2e-3)
