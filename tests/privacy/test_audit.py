"""Lower bounds of epsilon from scores whose true epsilon has a closed form."""

import sys

import dp_accounting
import numpy as np
import pytest
from scipy import stats

from fedpeft_jax import InputError
from fedpeft_jax.privacy.audit import gaussian_lower_bound, lower_bound

DELTA = 0.05


def scores(mu, number=1500, seed=0):
    """Scores of canaries in and out of a Gaussian mechanism of that parameter."""
    rng = np.random.default_rng(seed)
    is_in = rng.random(number) < 0.5
    drawn = rng.normal(size=number) + mu * is_in
    return drawn[is_in], drawn[~is_in]


def epsilon(mu):
    return dp_accounting.get_epsilon_gaussian(1 / mu, DELTA)


def both(scores, threshold=0.0, **settings):
    """The bound for any mechanism, and the one for a Gaussian mechanism."""
    settings = {"delta": DELTA, **settings}
    gaussian = gaussian_lower_bound(*scores, threshold=threshold, **settings)
    return lower_bound(*scores, **settings), gaussian


@pytest.mark.parametrize("seed", range(5))
def test_the_bounds_are_below_the_true_epsilon_and_catch_a_wrong_one(seed):
    """An accountant that forgets the 2 of replace-one computes epsilon for mu / 2."""
    found, gaussian = both(scores(mu=1.5, seed=seed), threshold=0.75)
    wrong, true = epsilon(0.75), epsilon(1.5)
    assert wrong == pytest.approx(1.00, abs=0.01) and true == pytest.approx(2.93, 0.01)
    assert wrong + 0.1 < found < true
    assert wrong + 0.5 < gaussian < true


@pytest.mark.parametrize("number", [20, 1500])
@pytest.mark.parametrize("delta", [1e-5, DELTA])
def test_canaries_without_an_effect_bound_nothing(number, delta):
    assert both(scores(mu=0.0, number=number), delta=delta) == (0, 0)


def test_the_gaussian_bound_is_wrong_as_rarely_as_it_says():
    """Over 400 draws of the canaries, at a large significance."""
    given = {"threshold": 0.5, "delta": 1e-3, "significance": 0.3}
    found = np.array([
        gaussian_lower_bound(*scores(1.0, 200, seed), **given) for seed in range(400)
    ])  # fmt: skip
    true = dp_accounting.get_epsilon_gaussian(1.0, 1e-3)
    assert np.mean(found > true) < 0.3
    assert np.mean(found > true) > 0.02  # and is not needlessly small


def test_scores_that_never_overlap_give_the_most_that_their_number_allows():
    """Clopper-Pearson with no error among n: an error rate of at most 1 - a^(1/n)."""
    number = 200
    scores = np.arange(number) + 1e6, np.arange(number) * 1.0
    found, gaussian = both(scores, threshold=5e5, significance=0.1)
    # Three thresholds (all, none, the gap) share the significance, with two rates each.
    rate = 1 - (0.1 / 2 / 3) ** (1 / number)
    assert found == pytest.approx(np.log((1 - rate - DELTA) / rate), 1e-6)
    rate = 1 - (0.1 / 2) ** (1 / number)
    assert gaussian == pytest.approx(epsilon(2 * stats.norm.isf(rate)), 1e-6)


def test_a_smaller_significance_gives_a_smaller_bound():
    given = scores(mu=1.5)
    strict = both(given, threshold=0.75, significance=1e-6)
    usual = both(given, threshold=0.75)
    assert strict[0] < usual[0] and strict[1] < usual[1]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"delta": 0.0}, "delta"),
        ({"delta": 0.1, "significance": 0.5}, "significance"),
    ],
)
def test_what_is_refused(settings, says):
    with pytest.raises(InputError, match=says):
        lower_bound(*scores(1.0), **settings)


def test_one_side_alone_is_refused():
    with pytest.raises(InputError, match="0 that are in and 3 that are out"):
        lower_bound(np.zeros(0), np.zeros(3), delta=DELTA)


def test_a_missing_package_is_named(monkeypatch):
    for name in ("jax_privacy", "jax_privacy.auditing"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match=r"pip install 'fedpeft_jax\[audit\]'"):
        lower_bound(*scores(1.0), delta=DELTA)
