"""Neural layers that several recommenders use."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from fedpeft_jax.core.bounds import Bounds, check_number, check_sizes
from fedpeft_jax.core.typing import Array, Key


class Dropout(nn.Module):
    """Sets a random share of the units to zero and scales up the others.

    Unlike `flax.linen.Dropout`, it draws only as many random bits per unit as the rate
    has binary digits (one for 0.5, eight at most) instead of 32. For small clients,
    drawing 32 bits would take as long as all layers. The rate is rounded to a multiple
    of 1/256, and the others are scaled by the rounded rate.

    Attributes:
      rate: share of the units to drop, at least 0 and below 1.

    Example:
      >>> units = jnp.ones((2, 4))
      >>> Dropout(0.5).apply({}, units, deterministic=True).tolist() == units.tolist()
      True
      >>> rngs = {"dropout": jax.random.key(0)}
      >>> dropped = Dropout(0.5).apply({}, units, deterministic=False, rngs=rngs)
      >>> sorted(set(dropped.ravel().tolist()))
      [0.0, 2.0]
    """

    rate: float

    def __call__(self, units: Array, *, deterministic: bool) -> Array:
        """Returns the units, float32[...]; unchanged if `deterministic`."""
        parts = min(round(self.rate * 256), 255)
        if deterministic or not parts:
            return units
        dropped = _bernoulli(self.make_rng("dropout"), parts, units.shape)
        return jnp.where(dropped, 0.0, units * (256 / (256 - parts)))


def _bernoulli(key: Key, parts: int, shape: tuple[int, ...]) -> Array:
    """Draws bool[shape], each True with a probability of parts / 256."""
    digits = f"{parts:08b}".rstrip("0")
    words = jnp.zeros(-(-math.prod(shape) // 32), jnp.uint32)
    for place, digit in enumerate(reversed(digits)):
        random = jax.random.bits(jax.random.fold_in(key, place), words.shape)
        # For a 0, half of the probability so far; for a 1, one half more than that.
        words = words | random if digit == "1" else words & random
    bits = (words[:, None] >> jnp.arange(32, dtype=jnp.uint32)[None]) & 1
    return bits.ravel()[: math.prod(shape)].reshape(shape).astype(bool)


def check_hidden(hidden: Sequence[int], dropout: float) -> None:
    """Raises InputError without hidden layers, or for a dropout not in [0, 1)."""
    check_sizes("hidden", hidden, 65536, "write sizes such as (64, 32)")
    check_number("dropout", dropout, Bounds(least=0, below=1))
