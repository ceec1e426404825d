"""BPR by hand, and padding that can never make a NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.federated.losses import LOSSES, bce, bpr, masked_mean
from tests import toys

EVERY_LOSS = LOSSES | toys.LOSSES


def test_bpr_by_hand():
    positives, negatives = jnp.array([1.0, -1.0]), jnp.array([[0.0], [2.0]])
    # (ln(1 + e^-1) + ln(1 + e^3)) / 2
    expected = (0.3132617 + 3.0485874) / 2
    loss = bpr(positives, negatives, jnp.array([True, True]))
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    first = bpr(positives, negatives, jnp.array([True, False]))
    assert float(first) == pytest.approx(0.3132617, rel=1e-6)


def test_bpr_is_the_mean_over_every_pair():
    positives, negatives = jnp.array([0.0, 5.0]), jnp.array([[0.0, 1.0], [7.0, 7.0]])
    loss = bpr(positives, negatives, jnp.array([True, False]))
    assert float(loss) == pytest.approx((0.6931472 + 1.3132617) / 2, rel=1e-6)


def test_bpr_gradient_by_hand():
    gradient = jax.grad(lambda p: bpr(p, jnp.zeros((2, 1)), jnp.array([True, True])))
    expected = -1 / (1 + np.exp([1.0, -2.0])) / 2
    np.testing.assert_allclose(gradient(jnp.array([1.0, -2.0])), expected, rtol=1e-6)


@pytest.mark.parametrize("num_negatives", [1, 3])
def test_bce_in_numpy(num_negatives):
    rng = np.random.default_rng(0)
    positives, negatives = rng.normal(size=4), rng.normal(size=(4, num_negatives))
    logs = []
    for row in (0, 1, 3):  # the third positive is padding
        logs.append(np.log(1 / (1 + np.exp(-positives[row]))))
        logs.extend(np.log(1 - 1 / (1 + np.exp(-negatives[row]))))
    mask = jnp.array([True, True, False, True])
    loss = bce(jnp.float32(positives), jnp.float32(negatives), mask)
    assert float(loss) == pytest.approx(-np.mean(logs), rel=1e-6)


def test_bce_gradient_by_hand():
    """A sigmoid minus its label, over the number of scores."""
    mask = jnp.array([True, True])
    scores = jnp.array([1.0, -2.0]), jnp.array([[0.5, 0.0], [3.0, -1.0]])
    to_positives, to_negatives = jax.grad(lambda s: bce(*s, mask))(scores)
    sigmoids = [1 / (1 + np.exp(-np.asarray(s, float))) for s in scores]
    np.testing.assert_allclose(to_positives, (sigmoids[0] - 1) / 6, rtol=1e-5)
    np.testing.assert_allclose(to_negatives, sigmoids[1] / 6, rtol=1e-5)


@pytest.mark.parametrize("name", EVERY_LOSS)
@pytest.mark.parametrize("mask", [[True, True, False], [False, False, False]])
@pytest.mark.parametrize("padding", [0.0, 1e30, -1e30])
def test_padding_never_makes_a_nan(name, mask, padding):
    keep = jnp.array(mask)
    positives = jnp.where(keep, jnp.array([0.5, -1.0, 2.0]), padding)
    negatives = jnp.where(keep[:, None], jnp.ones((3, 2)), -padding)
    value, gradient = jax.value_and_grad(EVERY_LOSS[name](), (0, 1))(
        positives, negatives, keep
    )
    assert jnp.isfinite(value)
    for g in gradient:
        assert jnp.isfinite(g).all()
        assert not g[~keep].any()
    if not any(mask):
        assert value == 0


@pytest.mark.parametrize("name", EVERY_LOSS)
def test_padding_does_not_change_a_loss(name):
    loss = EVERY_LOSS[name]()
    rng = np.random.default_rng(0)
    positives = jnp.asarray(rng.normal(size=5), jnp.float32)
    negatives = jnp.asarray(rng.normal(size=(5, 3)), jnp.float32)
    mask = jnp.array([True, True, True, False, False])
    whole = loss(positives[:3], negatives[:3], mask[:3])
    np.testing.assert_allclose(loss(positives, negatives, mask), whole, rtol=1e-6)


def test_masked_mean_ignores_even_a_nan():
    values = jnp.array([[1.0, 3.0], [jnp.nan, jnp.inf]])
    assert masked_mean(values, jnp.array([True, False])) == 2.0
    assert masked_mean(values, jnp.array([False, False])) == 0.0
    gradient = jax.grad(lambda v: masked_mean(v, jnp.array([True, False])))(values)
    np.testing.assert_array_equal(gradient, [[0.5, 0.5], [0.0, 0.0]])
