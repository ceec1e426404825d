"""Dropout keeps its promises."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.backbones.layers import Dropout


def _drop(rate, shape, seed=0, deterministic=False):
    units = jnp.full(shape, 3.0)
    rngs = {"dropout": jax.random.key(seed)}
    return np.asarray(
        Dropout(rate).apply({}, units, deterministic=deterministic, rngs=rngs)
    )


@pytest.mark.parametrize("rate", [1 / 256, 0.1, 0.25, 0.5, 0.7, 0.999])
def test_dropout_drops_its_share_and_keeps_the_mean(rate):
    dropped = _drop(rate, (400, 500))
    share = min(round(rate * 256), 255) / 256
    error = 4 * np.sqrt(share * (1 - share) / dropped.size)
    assert abs((dropped == 0).mean() - share) < error
    np.testing.assert_allclose(dropped[dropped != 0], 3 / (1 - share), rtol=1e-6)
    assert abs(dropped.mean() / 3 - 1) < error / (1 - share)


@pytest.mark.parametrize("shape", [(), (1,), (31,), (33, 3), (2, 5, 7)])
def test_dropout_of_any_shape(shape):
    assert _drop(0.5, shape).shape == shape


def test_dropped_units_are_independent_of_their_neighbours():
    zero = _drop(0.3, (64, 4096)) == 0
    for other in (np.roll(zero, 1, axis=1), np.roll(zero, 1, axis=0)):
        assert np.corrcoef(zero.ravel(), other.ravel())[0, 1] == pytest.approx(
            0, abs=0.01
        )
    assert (zero != (_drop(0.3, (64, 4096), seed=1) == 0)).mean() > 0.4


def test_no_dropout_needs_no_key():
    units = jnp.arange(4.0)
    for rate, deterministic in [(0.0, False), (0.5, True)]:
        out = Dropout(rate).apply({}, units, deterministic=deterministic)
        np.testing.assert_array_equal(out, units)
