"""Residual quantisation: an item as a sum of code vectors, one from each codebook.

Level by level, each codebook quantises what the levels before it left over.
"""

import math
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import Array, Key

_MOST_ITEMS = 65536  # that centres are computed from; more would not move them


class Levels(NamedTuple):
    """What residual quantisation does with some vectors, level by level.

    Attributes:
      codes: int32[l, B], the nearest code vector of each level's residual.
      residuals: float32[l, B, D], what each level quantises.
      chosen: float32[l, B, D], the code vectors; their sum is the quantised vector.
    """

    codes: Array
    residuals: Array
    chosen: Array


def quantize(codebooks: Array, vectors: Array) -> Levels:
    """Quantises vectors by codebooks float32[l, d_R, D], one level after the other.

    Args:
      codebooks: float32[l, d_R, D].
      vectors: float32[B, D].

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
    """Codes of all items.

    Attributes:
      codes: int32[I, l].
      codebooks: float32[l, d_R, D]; the sum of an item's code vectors approximates the
        item's latent.
      latents: float32[I, D], what was quantised.
      figures: how well: see `describe`.
    """

    codes: np.ndarray
    codebooks: np.ndarray
    latents: np.ndarray
    figures: dict[str, Any]


def describe(codebooks: np.ndarray, latents: np.ndarray) -> Quantized:
    """Reads the codes of latents, and reports how well they are used.

    Args:
      codebooks: float32[l, d_R, D].
      latents: float32[I, D].

    Returns:
      `Quantized`, with the figures `residual_norms` (l + 1 of them, the mean Euclidean
      norm of what is left before the first level and after each), and of each codebook
      `codes_used`, `dead_codes` and `perplexity`, the exponential of the entropy of
      how often its codes are used (d_R if all are used alike).
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
    """Clusters latents, then what the centres leave over, and so on (k-means++, Lloyd).

    Args:
      key: of the initial centres.
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
        with warnings.catch_warnings():
            # Fewer distinct items than centres leave dead codes, which are reported.
            warnings.simplefilter("ignore", ConvergenceWarning)
            means.fit(residual[some])
        codebooks.append(means.cluster_centers_.astype(np.float32))
        residual = residual - codebooks[-1][means.predict(residual)]
    return np.stack(codebooks)


def check_codebook_size(codebook_size: int, num_items: int) -> None:
    """Raises InputError if a codebook has more codes than there are items."""
    if codebook_size > num_items:
        raise InputError(
            f"codebook_size={codebook_size} is larger than the catalogue of "
            f"{num_items} items: use 'rq(codebook_size=...)' of at most {num_items}"
        )
