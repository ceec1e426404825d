"""Updates keep their bound whatever they are, and noise has its distribution."""

import math

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.privacy.mechanisms import bound, gaussian, laplace, noise, norm_of

pytestmark = pytest.mark.usefixtures("quick_compilation")

MECHANISMS = [gaussian(1.0, clip=0.5), laplace(1.0, clip=0.5)]
LIKE = {"a": jnp.zeros((60, 40)), "b": jnp.zeros(1600)}
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)


def vector(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]).astype(float)


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda m: m.name)
@hypothesis.settings(max_examples=80, deadline=None)
@hypothesis.given(
    st.lists(NUMBERS, min_size=6, max_size=6), st.sampled_from([1e-6, 0.5, 3e4])
)
def test_no_update_exceeds_the_bound(mechanism, numbers, clip):
    update = {"w": jnp.array(numbers[:2]), "rows": jnp.array(numbers[2:])}
    bounded, norm = bound(mechanism, update, clip)
    order = 1 if mechanism.name == "laplace" else 2
    assert np.linalg.norm(vector(bounded), order) <= clip * (1 + 1e-5)
    exact = np.linalg.norm(vector(update), order)
    if 1e-15 < exact < 1e15:  # squares of larger numbers overflow
        assert float(norm) == pytest.approx(exact, rel=1e-5)
        if exact < clip:
            np.testing.assert_array_equal(vector(bounded), vector(update))
        else:
            direction = vector(update) / exact * clip
            np.testing.assert_allclose(vector(bounded), direction, 1e-4, 1e-12)


def test_replacing_a_client_changes_the_sum_by_twice_the_clip_at_most():
    mechanism = gaussian(1.0, clip=0.5)
    one, _ = bound(mechanism, jnp.array([1e20, 0.0]), 0.5)
    other, _ = bound(mechanism, jnp.array([-1e-3, -1e9]), 0.5)
    assert np.linalg.norm(np.asarray(one - other)) <= 1.0 + 1e-6
    opposite, _ = bound(mechanism, jnp.array([-7.0, 0.0]), 0.5)
    far, _ = bound(mechanism, jnp.array([7.0, 0.0]), 0.5)
    assert np.linalg.norm(np.asarray(far - opposite)) == pytest.approx(1.0)


def test_an_update_that_is_not_finite_is_not_hidden():
    bounded, norm = bound(gaussian(1.0), jnp.array([math.nan, 1.0]), 1.0)
    assert not np.isfinite(norm) and np.isnan(bounded).all()


@pytest.mark.parametrize(
    ("mechanism", "copies"), [(m, copies) for m in MECHANISMS for copies in (1, 9)]
)
def test_noise_has_its_distribution(mechanism, copies):
    drawn = vector(noise(mechanism, jax.random.key(5), LIKE, 0.3, copies))
    if mechanism.name == "gaussian":
        reference = stats.norm(scale=0.3 * math.sqrt(copies)).cdf
        assert stats.kstest(drawn, reference).pvalue > 1e-3
    else:
        each = np.random.default_rng(0).laplace(scale=0.3, size=(copies, 100_000))
        assert stats.ks_2samp(drawn, each.sum(axis=0)).pvalue > 1e-3
        if copies == 1:
            assert stats.kstest(drawn, stats.laplace(scale=0.3).cdf).pvalue > 1e-3


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda m: m.name)
def test_noise_of_a_counted_cohort(mechanism):
    """The number of clients is known in the compiled program alone."""
    draw = jax.jit(lambda n: noise(mechanism, jax.random.key(1), LIKE, 2.0, n))
    assert not vector(draw(0)).any()
    variance = 4.0 * (1 if mechanism.name == "gaussian" else 2)
    for copies in (1, 25):
        assert vector(draw(copies)).var() == pytest.approx(copies * variance, rel=0.12)


def test_arrays_of_the_same_shape_have_noises_of_their_own():
    twins = [jnp.zeros(2000), jnp.zeros(2000)]
    one, other = noise(gaussian(1.0), jax.random.key(0), twins, 1.0)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.1


def test_norms():
    tree = {"w": jnp.array([[3.0], [-4.0]]), "b": jnp.array(12.0)}
    assert float(norm_of(gaussian(), tree)) == 13.0
    assert float(norm_of(laplace(), tree)) == 19.0
    assert float(norm_of(gaussian(), {})) == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"noise_multiplier": -1.0}, "at least 0"),
        ({"noise_multiplier": math.nan}, "at least 0"),
        ({"clip": 0.0}, "above 0"),
        ({"clip": None}, "only noise_multiplier=0 allows"),
        ({"noise_multiplier": 1.0, "clip": None}, "only noise_multiplier=0 allows"),
        ({"quantile": 1.0}, "below 1"),
        ({"quantile": 0.5, "clip_rate": 0.0}, "clip_rate"),
        ({"quantile": 0.5, "count_noise": 0.0}, "count_noise"),
        ({"count_noise": 3.0}, "no effect with a fixed clip"),
    ],
)
@pytest.mark.parametrize("make", [gaussian, laplace])
def test_mechanisms_that_cannot_be(make, arguments, message):
    with pytest.raises(InputError, match=message):
        make(**arguments)
