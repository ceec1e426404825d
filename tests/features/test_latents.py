"""Scales are exact, dimensions without spread stay zero, a collapse is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.features import normalize_latents, random_latents
from fedpeft_jax.features.latents import refuse_collapse, standardize_encodings


def _planted(num_items=150, features=20, rank=3, seed=0):
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(num_items, rank))
    noise = 0.05 * rng.normal(size=(num_items, features))
    return 7.0 + factors @ rng.normal(size=(rank, features)) + noise


@pytest.mark.parametrize(
    ("explained", "spread"),
    [
        (0.049, [1.0, 1.0]),
        (float("nan"), [1.0, 1.0]),
        (0.9, [1.0, 1e-5, 0.0]),
        (0.9, [1e-6, 1e-6]),
        (0.9, [float("nan"), 1.0, 1.0]),
        (0.9, [0.0]),
    ],
)
def test_what_counts_as_a_collapse(explained, spread):
    with pytest.raises(InputError, match="collapsed"):
        refuse_collapse(explained, np.array(spread))


def test_what_does_not():
    refuse_collapse(0.05, np.array([1.0, 0.1, 0.0]))
    refuse_collapse(0.9, np.array([1.0]))


def test_standardized_by_one_scale():
    data = _planted() * np.linspace(1.0, 9.0, 20)
    result = standardize_encodings(data)
    np.testing.assert_allclose(result.mean(axis=0), 0.0, atol=1e-6)
    assert np.square(result).mean() == pytest.approx(1.0, rel=1e-5)
    ratio = data.std(axis=0) / result.std(axis=0)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-4)


def test_normalized_per_dimension():
    latents = _planted() * np.linspace(0.01, 90.0, 20)
    latents[:, 3] = 0.1  # its mean is not exactly 0.1, so its spread not exactly 0
    result = np.asarray(normalize_latents(latents, scale=0.3), np.float64)
    expected = np.full(20, 0.3)
    expected[3] = 0.0
    np.testing.assert_allclose(result.std(axis=0), expected, rtol=1e-5)
    np.testing.assert_allclose(result.mean(axis=0), 0.0, atol=1e-6)
    assert not result[:, 3].any()


def test_normalized_by_one_scale():
    latents = _planted() * np.linspace(0.1, 9.0, 20)
    latents[:, 3] = 5.0
    result = np.asarray(normalize_latents(latents, 0.5, per_dimension=False), float)
    assert np.sqrt(result.var(axis=0).mean()) == pytest.approx(0.5, rel=1e-5)
    ratios = result.std(axis=0) / result.std(axis=0)[0]
    expected = latents.std(axis=0) / latents.std(axis=0)[0]
    np.testing.assert_allclose(ratios, expected, rtol=1e-4, atol=1e-9)


def test_normalized_without_any_spread_is_zero():
    for per_dimension in (True, False):
        result = normalize_latents(np.full((4, 3), 0.1), per_dimension=per_dimension)
        np.testing.assert_array_equal(result, np.zeros((4, 3)))


def test_normalize_refuses():
    with pytest.raises(InputError, match="not a finite"):
        normalize_latents(np.array([[1.0, np.inf]]))
    with pytest.raises(InputError, match="not a finite"):
        normalize_latents(np.zeros(3))
    with pytest.raises(InputError, match="scale must be positive"):
        normalize_latents(np.eye(3), scale=0.0)


def test_random_latents_have_the_scale():
    latents = random_latents(jax.random.key(0), 4000, 8, scale=0.2)
    assert latents.dtype == jnp.float32
    np.testing.assert_allclose(latents.std(axis=0), 0.2, rtol=0.05)
    np.testing.assert_allclose(latents.mean(axis=0), 0.0, atol=0.02)
    again = random_latents(jax.random.key(0), 4000, 8, scale=0.2)
    np.testing.assert_array_equal(latents, again)
