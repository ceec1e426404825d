"""The MLP against the same layers in NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.features.layers import MLP


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
