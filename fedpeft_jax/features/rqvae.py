"""RQ-VAE: an autoencoder whose latent is a sum of one code vector per codebook.

Lee et al., Autoregressive image generation using residual quantization, CVPR 2022; for
item text, Rajput et al., Recommender systems with generative retrieval, NeurIPS 2023.
The encoder's gradient is the straight-through estimate (van den Oord et al., NeurIPS
2017) or that of the rotation trick (Fifty et al., ICLR 2025, arXiv 2410.06424).
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.features.autoencoder import Autoencoder, train_autoencoder
from fedpeft_jax.features.latents import standardize_encodings
from fedpeft_jax.features.minibatches import Minibatches, Progress, fit_network
from fedpeft_jax.features.quantization import (
    Quantized,
    check_codebook_size,
    describe,
    quantize,
    residual_kmeans,
    restart_dead_codes,
)

Gradient: TypeAlias = Literal["rotation", "straight_through"]

_COMMITMENT = 0.25
_EPSILON = 1e-12


def straight_through(latents: Array, quantized: Array) -> Array:
    """Returns `quantized`, float32[B, D], whose gradient goes to `latents` unchanged.

    Example:
      >>> jax.grad(lambda z: straight_through(z, jnp.array([3.0])).sum())(jnp.array([1.0]))
      Array([1.], dtype=float32)
    """  # noqa: E501
    return latents + jax.lax.stop_gradient(quantized - latents)


def rotation_trick(latents: Array, quantized: Array) -> Array:
    r"""Returns `quantized` as a rotation and scaling of `latents`, for the gradient.

    :math:`\tilde q = \lambda R z` with :math:`\lambda = |q| / |z|` and the rotation
    :math:`R = I - 2 r r^T + 2 \hat q \hat z^T` from z to q, where r is the normalised
    sum of the unit vectors :math:`\hat z` and :math:`\hat q`. The gradient treats
    :math:`\lambda` and R as constants.

    Args:
      latents: float32[B, D], z.
      quantized: float32[B, D], q.

    Returns:
      float32[B, D], equal to q up to rounding.

    Source:
      Fifty et al., arXiv 2410.06424, section 4.2.

    Example:
      >>> z, q = jnp.array([[1.0, 0.0]]), jnp.array([[0.0, 2.0]])
      >>> rotation_trick(z, q).round(5).tolist()
      [[0.0, 2.0]]
      >>> jax.grad(lambda z: rotation_trick(z, q)[0, 0])(z).round(5).tolist()
      [[0.0, -2.0]]
    """

    def unit(x: Array) -> Array:
        return x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + _EPSILON)

    z_unit, q_unit, scale = jax.lax.stop_gradient(
        (
            unit(latents),
            unit(quantized),
            jnp.linalg.norm(quantized, axis=-1, keepdims=True)
            / (jnp.linalg.norm(latents, axis=-1, keepdims=True) + _EPSILON),
        )
    )
    mirror = jax.lax.stop_gradient(unit(z_unit + q_unit))

    def along(x: Array) -> Array:
        return jnp.sum(latents * x, axis=-1, keepdims=True)

    rotated = latents - 2 * along(mirror) * mirror + 2 * along(z_unit) * q_unit
    return scale * rotated


class RQVAE(nn.Module):
    """An autoencoder with codebooks between its encoder and its decoder.

    Attributes:
      autoencoder: encoder and decoder.
      num_codebooks: l.
      codebook_size: d_R.
      gradient: the encoder's gradient, `'straight_through'` or `'rotation'`.
    """

    autoencoder: Autoencoder
    num_codebooks: int = 4
    codebook_size: int = 256
    gradient: Gradient = "straight_through"

    def setup(self) -> None:
        shape = (self.num_codebooks, self.codebook_size, self.autoencoder.latent)
        self.codebooks = self.param("codebooks", nn.initializers.normal(1.0), shape)

    def errors(self, noisy: Array, clean: Array) -> Array:
        """Returns reconstruction + codebook + 0.25 commitment errors, float32[B]."""
        fixed = jax.lax.stop_gradient
        latents = self.autoencoder.encode(noisy)
        levels = quantize(self.codebooks, latents)
        residuals = fixed(levels.residuals)
        # The codebook error only moves a level's own code vectors, to its residuals.
        # The commitment error moves the encoder to the sum of the levels so far.
        codebook = jnp.square(levels.chosen - residuals)
        sums = fixed(jnp.cumsum(levels.chosen, axis=0))
        commitment = jnp.square(latents[None] - sums)
        estimators = {"rotation": rotation_trick, "straight_through": straight_through}
        output = self.autoencoder.decode(estimators[self.gradient](latents, sums[-1]))
        levelled = (codebook + _COMMITMENT * commitment).mean(axis=-1).sum(axis=0)
        return jnp.square(output - clean).mean(axis=-1) + levelled


@functools.partial(jax.jit, static_argnames="model")
def _encode(model: Autoencoder, variables: PyTree, data: Array) -> Array:
    latents: Any = model.apply(variables, data, method="encode")
    return latents


@functools.partial(jax.jit, static_argnames="model")
def _explained(
    model: Autoencoder, variables: PyTree, latents: Array, x: Array
) -> Array:
    output: Any = model.apply(variables, latents, method="decode")
    return 1.0 - jnp.square(output - x).mean() / jnp.square(x).mean()


def pretrain_rqvae(
    key: Key,
    encodings: np.ndarray | Array,
    *,
    num_codebooks: int = 4,
    codebook_size: int = 256,
    latent: int = 32,
    hidden: Sequence[int] = (512, 256, 128),
    gradient: Gradient = "straight_through",
    epochs: int | None = None,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    noise: float = 1.0,
    progress: Progress | None = None,
) -> Quantized:
    """Trains an RQ-VAE on item encodings and returns the items' codes.

    The first stage trains the autoencoder alone. Residual k-means on its latents then
    gives the codebooks, and the second stage trains both together. Up to nine times
    during the second stage, codes that no item uses restart at the residuals of random
    items. The returned codes are those of the trained model, without noise.

    Args:
      key: a typed random key; the same key and inputs give the same codes.
      encodings: float[I, F].
      num_codebooks: l.
      codebook_size: d_R, at most I.
      latent: D, width of the latents.
      hidden: widths of the layers between F and D.
      gradient: `'straight_through'` or `'rotation'`.
      epochs: passes over the items in each stage; None for about 600 steps.
      batch_size: the most items per step.
      learning_rate: Adam's peak learning rate in each stage.
      noise: standard deviation of the noise on the inputs, as in
        `pretrain_autoencoder`.
      progress: called about ten times in the second stage.

    Returns:
      A `Quantized`. Its figures also have `explained_variance`, the share of the
      encodings' variance that the decoded sums of code vectors explain.

    Raises:
      InputError: if the encodings or an argument cannot be used.

    Example:
      >>> encodings = np.random.default_rng(0).normal(size=(64, 2)) @ np.eye(2, 8)
      >>> result = pretrain_rqvae(jax.random.key(0), encodings, num_codebooks=2,
      ...     codebook_size=8, latent=4, hidden=(16,), epochs=100, learning_rate=1e-2)
      >>> result.codes.shape, result.codebooks.shape
      ((64, 2), (2, 8, 4))
    """
    data = jnp.asarray(standardize_encodings(np.asarray(encodings)))
    check_codebook_size(codebook_size, len(data))
    if gradient not in get_args(Gradient):
        raise InputError(
            f"gradient={gradient!r} is not known: use 'rotation' or 'straight_through'"
        )
    first_key, means_key, train_key, restart_key = jax.random.split(key, 4)
    minibatches = Minibatches(epochs, batch_size, learning_rate, noise)
    autoencoder, variables, _ = train_autoencoder(
        first_key, data, latent, hidden, minibatches
    )
    latents = np.asarray(_encode(autoencoder, variables, data))
    codebooks = residual_kmeans(means_key, latents, num_codebooks, codebook_size)
    start = {"autoencoder": variables["params"], "codebooks": jnp.asarray(codebooks)}

    def restart(variables: PyTree, done: int) -> PyTree:
        inner = variables["params"]
        latents = _encode(autoencoder, {"params": inner["autoencoder"]}, data)
        random = np.random.default_rng(
            int(jax.random.bits(jax.random.fold_in(restart_key, done)))
        )
        books = restart_dead_codes(random, inner["codebooks"], latents)
        return {"params": {**inner, "codebooks": jnp.asarray(books)}}

    trained, _ = fit_network(
        RQVAE(autoencoder, num_codebooks, codebook_size, gradient, parent=None),
        {"params": start},
        data,
        train_key,
        minibatches,
        progress=progress,
        between=restart,
    )
    inner = trained["params"]
    weights = {"params": inner["autoencoder"]}
    latents = np.asarray(_encode(autoencoder, weights, data))
    result = describe(np.asarray(inner["codebooks"]), latents)
    sums = sum(
        book[level]
        for book, level in zip(result.codebooks, result.codes.T, strict=True)
    )
    explained = float(_explained(autoencoder, weights, jnp.asarray(sums), data))
    figures = {"explained_variance": explained, **result.figures}
    return result._replace(figures=figures)
