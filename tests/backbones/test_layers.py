"""Dropout and hidden layers, alone and in the recommenders that have them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.backbones import FedNCF, PFedRec
from fedpeft_jax.backbones.layers import Dropout
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import History
from fedpeft_jax.embeddings import ItemEmbedding

HISTORY = History(jnp.array([0]), jnp.array([True]))


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


@pytest.mark.parametrize("make", [FedNCF, PFedRec])
def test_dropout_is_for_training_only(make):
    model = make(item_embedding=ItemEmbedding(30, 8, init_scale=1.0), dropout=0.5)
    variables = model.init(
        jax.random.key(0), HISTORY, None, deterministic=True, method="score"
    )

    def score(deterministic, seed):
        return model.apply(
            variables, HISTORY, None, deterministic=deterministic, method="score",
            rngs={"dropout": jax.random.key(seed)},
        )  # fmt: skip

    np.testing.assert_array_equal(score(True, 0), score(True, 1))
    assert (score(False, 0) != score(False, 1)).all()
    # In expectation the last layer's input is what it is without dropout.
    many = jnp.mean(jnp.stack([score(False, seed) for seed in range(200)]), axis=0)
    correlation = np.corrcoef(many, score(True, 0))[0, 1]
    assert correlation > 0.9


@pytest.mark.parametrize("make", [FedNCF, PFedRec])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": ()}, r"hidden=\(\) must be a tuple of layer sizes"),
        ({"hidden": (4, 0)}, "must be a tuple of layer sizes"),
        ({"hidden": 64}, "hidden=64 must be a tuple of layer sizes"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"dropout": -0.1}, "dropout must be .* got -0.1"),
    ],
)
def test_networks_refuse_what_cannot_be(make, settings, message):
    with pytest.raises(InputError, match=message):
        make(item_embedding=ItemEmbedding(3, 2), **settings)
