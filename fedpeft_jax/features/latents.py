"""Scales encodings and latents, and checks that the latent space has not collapsed."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import Array, Key

MIN_EXPLAINED_VARIANCE = 0.05
DEFAULT_SCALE = 0.5
_NEGLIGIBLE = 1e-3  # relative to the widest dimension's spread and to the inputs' (1)
_ROUNDING = 1e-6  # relative to the largest value; a smaller spread is float32 rounding


def standardize_encodings(encodings: np.ndarray) -> np.ndarray:
    """Centres encodings and divides them by one scale, their root mean variance.

    ``(x - mean) / sqrt(mean |x - mean|^2 / F)``: the variance per dimension is 1 on
    average. All dimensions share one scale, because a scale per dimension would amplify
    the directions that carry no information.

    Args:
      encodings: float[I, F], at least two rows, finite, not all equal.

    Returns:
      float32[I, F].

    Raises:
      InputError: for another shape, for NaN or infinite values, and if all rows are
        equal.

    Example:
      >>> standardize_encodings(np.array([[3.0, 0.0], [1.0, 2.0]])).tolist()
      [[1.0, -1.0], [-1.0, 1.0]]
    """
    data = np.asarray(encodings, np.float64)
    if data.ndim != 2 or data.shape[0] < 2 or data.shape[1] < 1:
        raise InputError(
            f"encodings have shape {data.shape}: pass [items, features] with at least "
            "2 items"
        )
    if not np.isfinite(data).all():
        raise InputError(
            "encodings hold NaN or infinite values: encode the item texts again"
        )
    largest = np.abs(data).max()
    data = data - data.mean(axis=0)
    scale = math.sqrt(np.square(data).mean())
    if scale <= _ROUNDING * largest:
        raise InputError(
            f"all {len(data)} items have the same encoding, so there is nothing to "
            "learn: check the item texts or embeddings, or use `full_init=random`"
        )
    standard: np.ndarray = (data / scale).astype(np.float32)
    return standard


def refuse_collapse(explained_variance: float, latent_spread: np.ndarray) -> None:
    """Raises InputError if latents do not distinguish items enough for an item table.

    Args:
      explained_variance: share of the standardised encodings' variance, at most 1.
      latent_spread: float[D], standard deviation of each latent dimension.

    Raises:
      InputError: if the explained variance is below 0.05, fewer than two dimensions
        (one, if D is 1) have a spread, or a value is not finite.

    Example:
      >>> refuse_collapse(0.5, np.array([1.0, 1.0, 0.0]))
      >>> refuse_collapse(0.01, np.array([1.0, 1.0, 0.0]))  # doctest: +ELLIPSIS
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: the autoencoder's latents collapsed (explained ...
    """
    widest = float(latent_spread.max())
    useful = int(np.sum(latent_spread > _NEGLIGIBLE * max(1.0, widest)))
    # A comparison with NaN is False, so NaN is not good.
    good = explained_variance >= MIN_EXPLAINED_VARIANCE and math.isfinite(widest)
    if not (good and useful >= min(2, len(latent_spread))):
        raise InputError(
            "the autoencoder's latents collapsed (explained variance "
            f"{explained_variance:.3g}, {useful} of {len(latent_spread)} dimensions "
            f"with spread, the widest {widest:.3g}): lower its learning rate, train "
            "for more epochs, check the item texts, or use `full_init=random`"
        )


def normalize_latents(
    latents: np.ndarray | Array,
    scale: float = DEFAULT_SCALE,
    per_dimension: bool = True,
) -> Array:
    """Centres latents and rescales them to a given standard deviation.

    ``scale * (z - mean) / std``, where std is each dimension's, or the root mean square
    over all dimensions. The scale of the full table determines how fast the user
    vectors learn.

    Args:
      latents: float[I, D], finite.
      scale: standard deviation of the result.
      per_dimension: if True, each dimension gets this standard deviation; otherwise the
        root mean square over the dimensions does, and their ratios stay as they are.

    Returns:
      float32[I, D]; dimensions without spread are zero.

    Raises:
      InputError: for another shape, for NaN or infinite values, and if the scale is
        not positive.

    Example:
      >>> normalize_latents(np.array([[1.0, 5.0], [3.0, 5.0]]), scale=0.5).tolist()
      [[-0.5, 0.0], [0.5, 0.0]]
    """
    values = np.asarray(latents, np.float64)
    if values.ndim != 2 or 0 in values.shape or not np.isfinite(values).all():
        raise InputError(
            f"latents of shape {values.shape} are not a finite [items, dimensions] "
            "matrix: pretrain them again"
        )
    if not 0 < scale < math.inf:
        raise InputError(f"the latents' scale must be positive, got {scale}: try 0.5")
    rounding = _ROUNDING * np.abs(values).max()
    values = values - values.mean(axis=0)
    spread = values.std(axis=0)
    alive = spread > rounding
    divisor = spread if per_dimension else np.sqrt(np.square(spread).mean())
    # The inner where avoids a division by zero in a dimension without spread.
    values = np.where(alive, values / np.where(alive, divisor, 1.0), 0.0)
    return jnp.asarray(scale * values, jnp.float32)


def random_latents(
    key: Key, num_items: int, latent: int, scale: float = DEFAULT_SCALE
) -> Array:
    """Draws a full item table without using item text, for ``full_init=random``.

    Its entries are ``scale * N(0, 1)``; ``normalize_latents`` has the same scale.

    Args:
      key: a typed random key.
      num_items: I.
      latent: D.
      scale: standard deviation of the entries.

    Returns:
      float32[I, D].

    Example:
      >>> random_latents(jax.random.key(0), 10, 4, scale=0.5).shape
      (10, 4)
    """
    return scale * jax.random.normal(key, (num_items, latent), jnp.float32)
