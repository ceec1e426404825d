"""Residual quantisation against a plain loop, and figures worked out by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.features.quantization import describe, quantize, residual_kmeans


def oracle(codebooks, vectors):
    """The textbook: nearest code vector, subtract, go on."""
    codes, rests = [], []
    for vector in vectors:
        rest, code, norms = vector.copy(), [], [np.linalg.norm(vector)]
        for book in codebooks:
            nearest = np.argmin([np.linalg.norm(rest - c) for c in book])
            rest = rest - book[nearest]
            code.append(nearest)
            norms.append(np.linalg.norm(rest))
        codes.append(code)
        rests.append(norms)
    return np.array(codes), np.array(rests)


def test_quantization_is_the_textbook_loop():
    rng = np.random.default_rng(0)
    codebooks, vectors = rng.normal(size=(3, 5, 4)), rng.normal(size=(20, 4))
    codes, norms = oracle(codebooks, vectors)
    levels = quantize(
        jnp.asarray(codebooks, jnp.float32), jnp.asarray(vectors, jnp.float32)
    )
    np.testing.assert_array_equal(np.asarray(levels.codes).T, codes)
    found = np.linalg.norm(levels.residuals, axis=2)
    np.testing.assert_allclose(found.T, norms[:, :-1], rtol=1e-5)
    total = sum(book[codes[:, level]] for level, book in enumerate(codebooks))
    np.testing.assert_allclose(levels.chosen.sum(0), total, rtol=1e-5, atol=1e-6)
    result = describe(np.float32(codebooks), np.float32(vectors))
    np.testing.assert_array_equal(result.codes, codes)
    np.testing.assert_allclose(
        result.figures["residual_norms"], norms.mean(axis=0), rtol=1e-5
    )


def test_figures_by_hand():
    # Three items use code 0, one uses code 2; codes 1 and 3 are dead.
    codebooks = np.float32([[[0.0], [99.0], [10.0], [-99.0]]])
    figures = describe(codebooks, np.float32([[0.5], [-0.5], [0.0], [10.5]])).figures
    assert figures["codes_used"] == [2]
    assert figures["dead_codes"] == [2]
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert figures["perplexity"] == pytest.approx([np.exp(entropy)])
    assert figures["residual_norms"] == pytest.approx([11.5 / 4, 1.5 / 4])


def test_residual_kmeans_shrinks_what_is_left_at_every_level():
    rng = np.random.default_rng(1)
    latents = rng.normal(size=(200, 6))
    books = residual_kmeans(jax.random.key(0), latents, 4, 16)
    assert books.shape == (4, 16, 6) and books.dtype == np.float32
    figures = describe(books, np.float32(latents)).figures
    norms = figures["residual_norms"]
    assert all(after < 0.95 * before for before, after in itertools.pairwise(norms))
    assert figures["dead_codes"] == [0] * 4
    again = residual_kmeans(jax.random.key(0), latents, 4, 16)
    np.testing.assert_array_equal(books, again)
    assert (residual_kmeans(jax.random.key(1), latents, 4, 16) != books).any()


def test_planted_clusters_are_found():
    coarse, fine = 10 * np.eye(3), np.array([[0.5, 0.5, 0.5], [-0.5, -0.5, -0.5]])
    which = np.array(list(itertools.product(range(3), range(2))) * 15)
    latents = coarse[which[:, 0]] + fine[which[:, 1]]
    books = residual_kmeans(jax.random.key(3), latents, 2, 3)
    result = describe(books, np.float32(latents))
    assert len(np.unique(result.codes, axis=0)) == 6
    assert result.figures["residual_norms"][-1] < 1e-2
    # All items of one planted pair share one code.
    for pair in np.unique(which, axis=0):
        codes = result.codes[(which == pair).all(axis=1)]
        assert len(np.unique(codes, axis=0)) == 1


def test_fewer_distinct_items_than_codes_leave_dead_ones_and_no_warning():
    latents = np.repeat(np.float32([[0.0], [1.0]]), 10, axis=0)
    books = residual_kmeans(jax.random.key(0), latents, 1, 4)
    figures = describe(books, latents).figures
    assert figures["codes_used"] == [2] and figures["dead_codes"] == [2]
    assert figures["residual_norms"][-1] < 1e-6


def test_a_codebook_larger_than_the_catalogue_is_refused():
    with pytest.raises(
        InputError, match="codebook_size=9 is larger than the catalogue"
    ):
        residual_kmeans(jax.random.key(0), np.zeros((8, 2)), 1, 9)
