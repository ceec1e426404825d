"""The MLP against the same layers in NumPy; dropout against what it promises."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.layers import MLP, Dropout


def _oracle(params, inputs, activate_final, activation):
    outputs = np.asarray(inputs)
    layers = sorted(params)
    for name in layers:
        outputs = outputs @ np.asarray(params[name]["kernel"]) + np.asarray(
            params[name]["bias"]
        )
        if activate_final or name != layers[-1]:
            outputs = activation(outputs)
    return outputs


@pytest.mark.parametrize("activate_final", [False, True])
@pytest.mark.parametrize(
    ("activation", "oracle"),
    [(nn.relu, lambda x: np.maximum(x, 0.0)), (jnp.tanh, np.tanh)],
)
def test_matches_dense_layers(activate_final, activation, oracle):
    model = MLP((7, 5, 3), activation=activation, activate_final=activate_final)
    inputs = np.random.default_rng(1).normal(size=(2, 4, 6)).astype(np.float32)
    params = jax.jit(model.init)(jax.random.key(1), inputs)["params"]
    # Biases start at zero; random ones show whether they are used at all.
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: np.float32(leaf + rng.normal(size=leaf.shape)), params
    )
    outputs = model.apply({"params": params}, inputs)
    expected = _oracle(params, inputs, activate_final, oracle)
    assert outputs.shape == (2, 4, 3)
    assert (expected < 0).any() != (activate_final and activation is nn.relu)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)


def test_without_layers_it_is_the_identity():
    inputs = jnp.arange(6.0).reshape(2, 3)
    model = MLP(())
    variables = model.init(jax.random.key(0), inputs)
    np.testing.assert_array_equal(model.apply(variables, inputs), inputs)
    assert not variables


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
