"""Residual quantisation: a vector as the sum of one code vector from each codebook.

Each codebook quantises the residual of the codebooks before it.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import Array, Key
from fedpeft_jax.core.warning_filters import ignored_warnings

_MOST_ITEMS = 65536  # used for computing the centres; more items barely change them


class Levels(NamedTuple):
    """The steps of residual quantisation, for some vectors.

    Attributes:
      codes: int32[l, B], index of the code vector that is nearest to the residual.
      residuals: float32[l, B, D], the input of each level.
      chosen: float32[l, B, D], these code vectors; their sum over the levels is the
        quantised vector.
    """

    codes: Array
    residuals: Array
    chosen: Array


def quantize(codebooks: Array, vectors: Array) -> Levels:
    """Quantises vectors with one codebook per level.

    ``c_j = argmin_c |r_j - C_j[c]|`` and ``r_(j+1) = r_j - C_j[c_j]``, from the vector
    ``r_1``.

    Args:
      codebooks: float32[l, d_R, D].
      vectors: float32[B, D].

    Returns:
      `Levels`.

    Example:
      >>> codebooks = jnp.array([[[0.0], [10.0]], [[-1.0], [1.0]]])
      >>> levels = quantize(codebooks, jnp.array([[9.2], [0.7]]))
      >>> levels.codes.tolist(), levels.chosen.sum(0).tolist()
      ([[1, 0], [0, 1]], [[9.0], [1.0]])
    """

    def level(residual: Array, codebook: Array) -> tuple[Array, Levels]:
        distance = jnp.sum(codebook**2, axis=1)[None] - 2.0 * residual @ codebook.T
        codes = jnp.argmin(distance, axis=1)
        chosen = codebook[codes]
        return residual - chosen, Levels(codes, residual, chosen)

    return jax.lax.scan(level, vectors, codebooks)[1]


class Quantized(NamedTuple):
    """The codes of all items.

    Attributes:
      codes: int32[I, l].
      codebooks: float32[l, d_R, D]; the sum of an item's code vectors approximates the
        item's latent.
      latents: float32[I, D], the quantised latents.
      figures: see `describe`.
    """

    codes: np.ndarray
    codebooks: np.ndarray
    latents: np.ndarray
    figures: dict[str, Any]


def describe(codebooks: np.ndarray, latents: np.ndarray) -> Quantized:
    """Returns the codes of latents, and figures of how well the codebooks are used.

    Args:
      codebooks: float32[l, d_R, D].
      latents: float32[I, D].

    Returns:
      `Quantized`. Its figures are `residual_norms`, l + 1 mean Euclidean norms of the
      residual: before the first level and after each level; and for each codebook
      `codes_used` and `dead_codes`, numbers of codes, and `perplexity`, the exponential
      of the entropy of the codes' frequencies (d_R if all are equally frequent).
    """
    levels = jax.jit(quantize)(jnp.asarray(codebooks), jnp.asarray(latents))
    residuals = np.concatenate(
        [levels.residuals, (levels.residuals[-1] - levels.chosen[-1])[None]]
    )
    codes = np.asarray(levels.codes).T
    size = codebooks.shape[1]
    counts = np.stack([np.bincount(level, minlength=size) for level in codes.T])
    shares = counts / len(codes)
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    used = (counts > 0).sum(axis=1)
    figures = {
        "residual_norms": np.linalg.norm(residuals, axis=2).mean(axis=1).tolist(),
        "codes_used": used.tolist(),
        "dead_codes": (size - used).tolist(),
        "perplexity": np.exp(-(shares * logs).sum(axis=1)).tolist(),
    }
    return Quantized(codes, np.asarray(codebooks), np.asarray(latents), figures)


def residual_kmeans(
    key: Key, latents: np.ndarray | Array, num_codebooks: int, codebook_size: int
) -> np.ndarray:
    """Clusters latents by k-means, then their residuals, and so on for each codebook.

    The centres start from k-means++ and are refined by Lloyd's algorithm.

    Args:
      key: random key of the initial centres.
      latents: float[I, D].
      num_codebooks: l.
      codebook_size: d_R, at most I.

    Returns:
      float32[l, d_R, D], the centres.

    Raises:
      InputError: if there are fewer items than centres.

    Example:
      >>> latents = np.array([[0.0], [0.2], [10.0], [10.2]])
      >>> books = residual_kmeans(jax.random.key(0), latents, 2, 2)
      >>> print(np.sort(books[..., 0]).round(1))
      [[ 0.1 10.1]
       [-0.1  0.1]]
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    residual = np.asarray(latents, np.float32)
    check_codebook_size(codebook_size, len(residual))
    seeds = jax.random.bits(key, (num_codebooks + 1,))
    random = np.random.default_rng(int(seeds[-1]))
    every = max(1, math.ceil(len(residual) / _MOST_ITEMS))
    some = random.permutation(len(residual))[::every] if every > 1 else slice(None)
    codebooks = []
    for seed in seeds[:-1]:
        means = KMeans(codebook_size, n_init=1, random_state=int(seed) % 2**31)
        # With fewer distinct items than centres, `describe` reports dead codes.
        with ignored_warnings(ConvergenceWarning):
            means.fit(residual[some])
        codebooks.append(means.cluster_centers_.astype(np.float32))
        residual = residual - codebooks[-1][means.predict(residual)]
    return np.stack(codebooks)


def restart_dead_codes(
    random: np.random.Generator, codebooks: Array, latents: Array
) -> np.ndarray:
    """Replaces code vectors that no item uses by the residuals of random items.

    Args:
      random: generator that draws the items.
      codebooks: float32[l, d_R, D].
      latents: float32[I, D].

    Returns:
      float32[l, d_R, D]; code vectors in use are unchanged.

    Example:
      >>> random, books = np.random.default_rng(0), jnp.array([[[0.0], [50.0]]])
      >>> restart_dead_codes(random, books, jnp.array([[0.5]])).tolist()
      [[[0.0], [0.5]]]
    """
    levels = jax.jit(quantize)(codebooks, latents)
    books = np.array(codebooks)
    for level, codes in enumerate(np.asarray(levels.codes)):
        dead = np.setdiff1d(np.arange(books.shape[1]), codes)
        items = random.integers(len(codes), size=len(dead))
        books[level, dead] = np.asarray(levels.residuals[level])[items]
    return books


def check_codebook_size(codebook_size: int, num_items: int) -> None:
    """Raises InputError if a codebook has more codes than there are items."""
    if codebook_size > num_items:
        raise InputError(
            f"codebook_size={codebook_size} is larger than the catalogue of "
            f"{num_items} items: set `embedding='rq(codebook_size=N)'` with N at most "
            f"{num_items}"
        )
