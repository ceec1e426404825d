"""Numbers as integers modulo 2^32, so that their sum is exact and can be masked.

Bonawitz et al., Practical secure aggregation for privacy-preserving machine learning,
CCS 2017, adds integers modulo R. Here R is 2^32. A negative level is represented by its
two's complement, and a sum is read as a number from -2^31 to 2^31 - 1.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedpeft_jax.core.bounds import MOST_FLOAT, MOST_INT, Bounds, check_number
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import Array, Key, PyTree

_MOST_BITS = 64
_BELOW_2_31 = 2147483520.0  # the largest float32 below 2^31


class FixedPoint(NamedTuple):
    r"""A fixed-point format: a number x has the level :math:`x 2^f`, rounded.

    Attributes:
      bound: the largest absolute value that is represented; larger ones are clipped to
        it. Choose it for what the client sends: after a clip to L2 norm C and Gaussian
        noise of standard deviation s, a coordinate exceeds C + 6 s with a probability
        of 2e-9.
      fraction_bits: f, the number of binary digits after the point. A negative number
        gives levels that are further apart than 1.

    Example:
      >>> FixedPoint(bound=1.5, fraction_bits=8).limit
      384
    """

    bound: float
    fraction_bits: int

    @property
    def limit(self) -> int:
        """The largest level."""
        return math.floor(math.ldexp(self.bound, self.fraction_bits))


def check_range(fixed_point: FixedPoint, num_clients: int) -> None:
    r"""Checks that no sum over the clients can overflow.

    A sum is read correctly if :math:`m L \le 2^{31} - 1`, where L is the largest level.

    Args:
      fixed_point: the format of each client's numbers.
      num_clients: m, the largest number of clients in the sum.

    Raises:
      InputError: if a sum could overflow, or if the format holds nothing but zero.

    Example:
      >>> check_range(FixedPoint(bound=1.0, fraction_bits=24), num_clients=127)
      >>> check_range(FixedPoint(bound=1.0, fraction_bits=24), num_clients=128)
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: a sum of 128 clients with bound=1.0 and fraction_bits=24
      can exceed 2^31 - 1: set fraction_bits to at most 23, or lower the bound
    """
    _check_bound(fixed_point.bound, num_clients)
    bits = fixed_point.fraction_bits
    check_number(
        "fraction_bits", bits, Bounds(-_MOST_BITS, most=_MOST_BITS), whole=True
    )
    named = f"bound={fixed_point.bound} and fraction_bits={bits}"
    if fixed_point.limit < 1:
        raise InputError(f"{named} represent nothing but zero: set more fraction_bits")
    if num_clients * fixed_point.limit > MOST_INT:
        finest = finest_fixed_point(fixed_point.bound, num_clients).fraction_bits
        raise InputError(
            f"a sum of {num_clients} clients with {named} can exceed 2^31 - 1: set "
            f"fraction_bits to at most {finest}, or lower the bound"
        )


def finest_fixed_point(bound: float, num_clients: int) -> FixedPoint:
    """Returns the format with the most fraction bits whose sums cannot overflow.

    Args:
      bound: the largest absolute value of a client's number.
      num_clients: m, the largest number of clients in the sum.

    Raises:
      InputError: if an argument is out of its bounds.

    Example:
      >>> finest_fixed_point(bound=1.0, num_clients=604)
      FixedPoint(bound=1.0, fraction_bits=21)
    """
    _check_bound(bound, num_clients)
    for bits in range(_MOST_BITS, -_MOST_BITS - 1, -1):
        found = FixedPoint(bound, bits)
        if 1 <= found.limit <= MOST_INT // num_clients:
            return found
    raise InputError(
        f"no fixed-point format holds sums of {num_clients} numbers up to {bound}: "
        "rescale the numbers"
    )


def to_fixed(
    tree: PyTree, fixed_point: FixedPoint, key: Key | None = None
) -> tuple[PyTree, Array]:
    r"""Returns the levels of the numbers, as integers modulo 2^32.

    A number becomes :math:`\mathrm{round}(x 2^f)`, half to even, or with a key
    :math:`\lfloor x 2^f + u \rfloor`, with u uniform in [0, 1), whose expectation is
    exact. Levels beyond the largest one are clipped to it and counted. A NaN becomes
    zero and is counted, too, because a sum of integers cannot hold one.

    Args:
      tree: float32 arrays.
      fixed_point: the format.
      key: random key of the rounding; None rounds to the nearest level.

    Returns:
      A tree of uint32 arrays, and int32[], how many levels were clipped.

    Example:
      >>> x = {"w": jnp.array([0.5, -0.25, 7.0])}
      >>> levels, num_clipped = to_fixed(x, FixedPoint(bound=1.0, fraction_bits=8))
      >>> levels["w"].tolist(), 2**32 - 64, int(num_clipped)
      ([128, 4294967232, 256], 4294967232, 1)
    """
    leaves, structure = jax.tree.flatten(tree)
    keys = [None] * len(leaves) if key is None else jax.random.split(key, len(leaves))
    pairs = [_levels(x, fixed_point, k) for x, k in zip(leaves, keys, strict=True)]
    num_clipped = sum((count for _, count in pairs), jnp.int32(0))
    return jax.tree.unflatten(structure, [levels for levels, _ in pairs]), num_clipped


def from_fixed(total: PyTree, fixed_point: FixedPoint) -> PyTree:
    """Returns the numbers of levels, or of sums of levels, modulo 2^32.

    Args:
      total: a tree of uint32 arrays.
      fixed_point: the format.

    Returns:
      A tree of float32 arrays. A float32 holds 24 binary digits, so that longer sums
      are rounded here; the sum of the levels itself is exact.

    Example:
      >>> total = jnp.array([384, 2**32 - 64], jnp.uint32)
      >>> from_fixed(total, FixedPoint(bound=1.0, fraction_bits=8)).tolist()
      [1.5, -0.25]
    """
    step = jnp.float32(2.0**-fixed_point.fraction_bits)

    def decode(x: Array) -> Array:
        signed = jax.lax.bitcast_convert_type(jnp.asarray(x), jnp.int32)
        return signed.astype(jnp.float32) * step

    return jax.tree.map(decode, total)


def _check_bound(bound: float, num_clients: int) -> None:
    check_number("bound", bound, Bounds(above=0, most=MOST_FLOAT))
    check_number("num_clients", num_clients, Bounds(1, most=MOST_INT), whole=True)


def _levels(x: Array, fixed_point: FixedPoint, key: Key | None) -> tuple[Array, Array]:
    """Returns the levels uint32[...] of one array, and how many were clipped."""
    scaled = x * jnp.float32(2.0**fixed_point.fraction_bits)  # exact: a power of two
    if key is None:
        rounded = jnp.round(scaled)
    else:
        below = jnp.floor(scaled)
        rounded = below + (jax.random.uniform(key, x.shape) < scaled - below)
    # The limit need not be a float32, so that the last clip is one of integers.
    finite = jnp.clip(jnp.nan_to_num(rounded, nan=0.0), -_BELOW_2_31, _BELOW_2_31)
    levels = finite.astype(jnp.int32)
    clipped = jnp.clip(levels, -fixed_point.limit, fixed_point.limit)
    outside = (levels != clipped) | (jnp.abs(rounded) > _BELOW_2_31) | jnp.isnan(x)
    wrapped = jax.lax.bitcast_convert_type(clipped, jnp.uint32)
    return wrapped, jnp.sum(outside, dtype=jnp.int32)
