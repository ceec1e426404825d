"""The RQ-VAE: its gradients written out, its restarts, and what it learns."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.features.autoencoder import Autoencoder
from fedpeft_jax.features.quantization import describe, restart_dead_codes
from fedpeft_jax.features.rqvae import (
    RQVAE,
    pretrain_rqvae,
    rotation_trick,
    straight_through,
)

SMALL = {"latent": 4, "hidden": (24,), "epochs": 60, "learning_rate": 1e-2}
BOOKS = {"num_codebooks": 3, "codebook_size": 8}


def planted(num_items=160, features=20, rank=3, seed=0):
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(num_items, rank))
    noise = 0.05 * rng.normal(size=(num_items, features))
    return 7.0 + factors @ rng.normal(size=(rank, features)) + noise


def pair(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=5), 3 * rng.normal(size=5)


@pytest.mark.parametrize("seed", range(3))
def test_rotation_trick_is_the_papers_matrix_with_its_scale(seed):
    z, q = pair(seed)
    z_unit, q_unit = z / np.linalg.norm(z), q / np.linalg.norm(q)
    r = (z_unit + q_unit) / np.linalg.norm(z_unit + q_unit)
    rotation = np.eye(5) - 2 * np.outer(r, r) + 2 * np.outer(q_unit, z_unit)
    scale = np.linalg.norm(q) / np.linalg.norm(z)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(5), atol=1e-12)
    jacobian = jax.jacobian(lambda x: rotation_trick(x[None], jnp.float32(q)[None])[0])
    np.testing.assert_allclose(
        jacobian(jnp.float32(z)), scale * rotation, rtol=1e-4, atol=1e-5
    )
    value = rotation_trick(jnp.float32(z)[None], jnp.float32(q)[None])[0]
    np.testing.assert_allclose(value, q, rtol=1e-4)


def test_straight_through_is_the_identity_to_the_gradient():
    z, q = map(jnp.float32, pair())
    np.testing.assert_allclose(straight_through(z, q), q, rtol=1e-6)
    np.testing.assert_array_equal(
        jax.jacobian(straight_through)(z, q), np.eye(5, dtype=np.float32)
    )


@pytest.mark.parametrize("trick", [rotation_trick, straight_through])
def test_quantized_vectors_get_no_gradient_and_zeros_no_nan(trick):
    z, q = (jnp.float32(x)[None] for x in pair())
    assert not jax.grad(lambda q: trick(z, q).sum())(q).any()
    for vectors in [(0 * z, q), (z, 0 * q), (z, -z), (0 * z, 0 * q)]:
        value, gradient = jax.value_and_grad(lambda z, q=vectors[1]: trick(z, q).sum())(
            vectors[0]
        )
        assert jnp.isfinite(value) and jnp.isfinite(gradient).all()


@pytest.mark.parametrize("gradient", ["rotation", "straight_through"])
def test_errors_are_reconstruction_codebook_and_commitment(gradient):
    """The loss in NumPy; a code vector's gradient is its level's error alone."""
    model = RQVAE(Autoencoder(6, (5,), 3), 2, 4, gradient)
    rng = np.random.default_rng(0)
    data = jnp.asarray(rng.normal(size=(7, 6)), jnp.float32)
    variables = model.init(jax.random.key(0), data, data, method="errors")
    books = np.asarray(variables["params"]["codebooks"], np.float64)
    inner = {"params": variables["params"]["autoencoder"]}
    latents = model.autoencoder.apply(inner, data, method="encode")
    latents = np.asarray(latents, np.float64)
    rest, total, extra, to_books = latents.copy(), 0.0, 0.0, np.zeros_like(books)
    for level, book in enumerate(books):
        codes = np.argmin(((rest[:, None] - book[None]) ** 2).sum(-1), axis=1)
        chosen = book[codes]
        extra += ((chosen - rest) ** 2).mean(axis=1)
        for item, code in enumerate(codes):
            to_books[level, code] += 2 * (chosen - rest)[item] / 3
        total, rest = total + chosen, rest - chosen
        extra += 0.25 * ((latents - total) ** 2).mean(axis=1)
    output = model.autoencoder.apply(inner, jnp.float32(total), method="decode")
    expected = ((np.asarray(output) - np.asarray(data)) ** 2).mean(axis=1) + extra
    found = model.apply(variables, data, data, method="errors")
    np.testing.assert_allclose(found, expected, rtol=1e-4)

    def loss(params):
        return model.apply({"params": params}, data, data, method="errors").sum()

    gradients = jax.grad(loss)(variables["params"])
    np.testing.assert_allclose(gradients["codebooks"], to_books, rtol=1e-3, atol=1e-4)
    for leaf in jax.tree.leaves(gradients["autoencoder"]):
        assert jnp.abs(leaf).max() > 0


def test_dead_codes_restart_at_residuals_and_others_stay():
    books = jnp.array([[[0.0, 0.0], [50.0, 50.0]], [[70.0, 70.0], [0.0, 1.0]]])
    latents = jnp.array([[1.0, 0.0], [0.0, 2.0]])
    after = restart_dead_codes(np.random.default_rng(0), books, latents)
    # No item uses the second code of the first level: it moves to one of the items.
    np.testing.assert_array_equal(after[0, 0], [0.0, 0.0])
    assert after[0, 1].tolist() in latents.tolist()
    assert after[1, 0].tolist() in latents.tolist()
    np.testing.assert_array_equal(after[1, 1], [0.0, 1.0])
    assert describe(after[:1], np.asarray(latents)).figures["dead_codes"] == [0]


@pytest.mark.parametrize("gradient", ["rotation", "straight_through"])
def test_learns_a_planted_structure(gradient):
    calls = []
    result = pretrain_rqvae(
        jax.random.key(0), planted(), gradient=gradient, **SMALL, **BOOKS,
        noise=0.1, progress=lambda *call: calls.append(call),
    )  # fmt: skip
    figures = result.figures
    assert result.codes.shape == (160, 3) and result.codes.max() < 8
    assert result.codebooks.shape == (3, 8, 4)
    # A constant explains nothing; 512 code sums most of three planted factors.
    assert 0.6 < figures["explained_variance"] <= 1.0
    norms = figures["residual_norms"]
    assert all(after < before for before, after in itertools.pairwise(norms))
    assert all(2 < perplexity <= 8 for perplexity in figures["perplexity"])
    assert [done for done, _, _ in calls] == list(range(6, 61, 6))
    # The codes are those of the codebooks and latents in the result.
    again = describe(result.codebooks, result.latents)
    np.testing.assert_array_equal(again.codes, result.codes)


def test_same_key_same_codes():
    first, again, other = (
        pretrain_rqvae(jax.random.key(seed), planted(), **SMALL, **BOOKS)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.codes, again.codes)
    np.testing.assert_array_equal(first.codebooks, again.codebooks)
    assert (first.codes != other.codes).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"codebook_size": 161}, "codebook_size=161 is larger than the catalogue"),
        ({"gradient": "none"}, "gradient='none' is not known: use 'rotation'"),
        ({"epochs": 0}, "epochs must be .* at least 1 .* got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0"),
        ({"latent": 0}, "latent must be 1 or more"),
    ],
)
def test_refuses_what_cannot_be(settings, message):
    with pytest.raises(InputError, match=message):
        pretrain_rqvae(jax.random.key(0), planted(), **{**SMALL, **BOOKS, **settings})
