r"""Mechanisms: a bound on the norm of one client's update, and noise for a sum of them.

A mechanism scales every update to a norm of at most the clip C and adds independent
noise to each number of the sum. Gaussian noise has the standard deviation z C, where C
bounds the L2 norm. Laplace noise has the scale z C, where C bounds the L1 norm. The
noise multiplier z is therefore relative to what one client that joins or leaves can
change. `accounting.py` turns it into epsilon.

The noise is drawn in float32 from JAX's generator. A deployment needs a cryptographic
generator and a discrete distribution (Mironov, On significance of the least significant
bits for differential privacy, CCS 2012).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fedpeft_jax.core.bounds import MOST_FLOAT, Bounds, check_number
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import Array, Key, PyTree


class Adaptive(NamedTuple):
    r"""How the clip follows a quantile of the norms of the updates.

    .. math:: C \leftarrow C \exp(-\eta (\bar b - \gamma))

    Here :math:`\bar b` is the share of the cohort whose norm is at most C, released
    with noise of its own.

    Source:
      Andrew et al., Differentially private learning with adaptive clipping, NeurIPS
      2021, section 2.

    Attributes:
      quantile: gamma, the share of the updates that shall not be clipped.
      rate: eta, the step of the logarithm of the clip in one round.
      count_noise: standard deviation (Laplace: scale) of the noise on the number of
        clients below the clip; None for a twentieth of the expected cohort, or 5 z if
        that is more.
    """

    quantile: float
    rate: float
    count_noise: float | None = None


class Mechanism(NamedTuple):
    """A bound and a noise.

    Attributes:
      name: `'gaussian'` or `'laplace'`.
      clip: C, the largest norm of an update (the first one if the clip is adaptive);
        infinite for no bound.
      noise_multiplier: z; None if it follows from a target.
      adaptive: how the clip changes; None if it is fixed.
    """

    name: str
    clip: float
    noise_multiplier: float | None
    adaptive: Adaptive | None = None


def gaussian(
    noise_multiplier: float | None = None,
    clip: float | None = 1.0,
    quantile: float | None = None,
    clip_rate: float = 0.2,
    count_noise: float | None = None,
) -> Mechanism:
    """Returns the mechanism with Gaussian noise and a bounded L2 norm.

    Args:
      noise_multiplier: z, the standard deviation of the noise over the clip; None if it
        follows from a target.
      clip: C, the largest L2 norm of one client's update; None for no bound, which
        only a noise of 0 allows.
      quantile: share of the updates that shall not be clipped, if the clip is adaptive.
      clip_rate: step of the logarithm of an adaptive clip.
      count_noise: noise on the number of clients below an adaptive clip; None as in
        `Adaptive`.

    Raises:
      InputError: for a number that is out of range.

    Source:
      McMahan et al., Learning differentially private recurrent language models, 2018.

    Example:
      >>> gaussian(noise_multiplier=2.0, clip=0.5).noise_multiplier
      2.0
    """
    return _mechanism(
        "gaussian", noise_multiplier, clip, quantile, clip_rate, count_noise
    )


def laplace(
    noise_multiplier: float | None = None,
    clip: float | None = 1.0,
    quantile: float | None = None,
    clip_rate: float = 0.2,
    count_noise: float | None = None,
) -> Mechanism:
    """Returns the mechanism with Laplace noise and a bounded L1 norm.

    Args:
      noise_multiplier: z, the scale of the noise over the clip; None as in `gaussian`.
      clip: C, the largest L1 norm of one client's update; None as in `gaussian`.
      quantile: as in `gaussian`, as are the following.
      clip_rate: step of the logarithm of an adaptive clip.
      count_noise: noise on the number of clients below an adaptive clip.

    Raises:
      InputError: for a number that is out of range.

    Source:
      Dwork et al., Calibrating noise to sensitivity in private data analysis, TCC
      2006. FedPEFT (arXiv 2512.13734) adds Laplace noise without a bound.

    Example:
      >>> laplace(noise_multiplier=2.0, clip=0.5).clip
      0.5
    """
    return _mechanism(
        "laplace", noise_multiplier, clip, quantile, clip_rate, count_noise
    )


MECHANISMS: dict[str, Callable[..., Mechanism | None]] = {
    "none": lambda: None,
    "gaussian": gaussian,
    "laplace": laplace,
}
"""Factories by the names that the setting `privacy` takes."""


def norm_of(mechanism: Mechanism, tree: PyTree) -> Array:
    """Returns the norm that a mechanism bounds: L2, or L1 for Laplace noise, float32[].

    Args:
      mechanism: the mechanism.
      tree: arrays of any shapes, which are one long vector.

    Example:
      >>> vector = {"w": jnp.array([3.0, -4.0])}
      >>> float(norm_of(gaussian(), vector)), float(norm_of(laplace(), vector))
      (5.0, 7.0)
    """
    leaves = jax.tree.leaves(tree)
    if mechanism.name == "laplace":
        return sum((jnp.sum(jnp.abs(x)) for x in leaves), jnp.float32(0))
    return jnp.sqrt(sum((jnp.sum(x * x) for x in leaves), jnp.float32(0)))


def bound(
    mechanism: Mechanism, tree: PyTree, clip: Array | float
) -> tuple[PyTree, Array]:
    r"""Scales an update to a norm of at most the clip.

    .. math:: x \min(1, C / \lVert x \rVert)

    An update whose norm overflows becomes zero, which keeps the bound.

    Args:
      mechanism: the mechanism, for its norm.
      tree: the update of one client, arrays of any shapes.
      clip: C, float32[], the largest norm.

    Returns:
      The update, and its norm before, float32[].

    Example:
      >>> bounded, norm = bound(gaussian(), {"w": jnp.array([3.0, 4.0])}, clip=1.0)
      >>> [round(float(x), 6) for x in bounded["w"]], float(norm)
      ([0.6, 0.8], 5.0)
    """
    norm = norm_of(mechanism, tree)
    # For an update of zero the quotient is infinite, and the factor is 1.
    factor = jnp.minimum(1.0, jnp.asarray(clip, jnp.float32) / norm)
    if mechanism.clip == math.inf:
        return tree, norm
    return jax.tree.map(lambda x: x * factor, tree), norm


def noise(
    mechanism: Mechanism,
    key: Key,
    like: PyTree,
    scale: Array | float,
    copies: Array | int = 1,
) -> PyTree:
    """Draws the sum of some independent noises for every number of a tree.

    The distribution of the sum is exact and its cost does not depend on the number of
    noises: n normal numbers add up to one of n times the variance, and n Laplace
    numbers to the difference of two Gamma numbers of shape n.

    Args:
      mechanism: the mechanism, for its distribution.
      key: random key.
      like: arrays float32 of the shapes to draw.
      scale: standard deviation (Laplace: scale) of one noise.
      copies: n, int32[], the number of noises that add up; may be 0.

    Returns:
      A tree like `like`.

    Example:
      >>> drawn = noise(gaussian(), jax.random.key(0), jnp.zeros(10_000), 2.0, copies=9)
      >>> round(float(jnp.std(drawn)))
      6
    """
    leaves, structure = jax.tree.flatten(like)
    count = jnp.asarray(copies, jnp.float32)

    def draw(own: Key, shape: tuple[int, ...]) -> Array:
        if mechanism.name == "gaussian":
            return jnp.sqrt(count) * jax.random.normal(own, shape)
        if isinstance(copies, int) and copies == 1:
            return jax.random.laplace(own, shape)
        up, down = jax.random.split(own)
        # A Gamma number of shape 0 is 0; its sampler needs a positive shape.
        least = jnp.maximum(count, 1.0)
        first, second = (jax.random.gamma(own, least, shape) for own in (up, down))
        return jnp.where(count > 0, first - second, 0.0)

    drawn = [
        scale * draw(jax.random.fold_in(key, place), jnp.shape(x))
        for place, x in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, drawn)


def _mechanism(
    name: str,
    noise_multiplier: float | None,
    clip: float | None,
    quantile: float | None,
    clip_rate: float,
    count_noise: float | None,
) -> Mechanism:
    if noise_multiplier is not None:
        bounds = Bounds(least=0, most=1e9)
        check_number(f"{name}: noise_multiplier", noise_multiplier, bounds)
    if clip is None:
        if noise_multiplier != 0 or quantile is not None:
            raise InputError(
                f"{name}: clip=None leaves one client unbounded, which only "
                "noise_multiplier=0 allows: give a clip"
            )
        return Mechanism(name, math.inf, 0.0)
    check_number(f"{name}: clip", clip, Bounds(above=0, most=MOST_FLOAT))
    check_number(f"{name}: clip_rate", clip_rate, Bounds(above=0, most=10))
    if count_noise is not None:
        check_number(f"{name}: count_noise", count_noise, Bounds(above=0, most=1e9))
    if quantile is None:
        if count_noise is not None:
            raise InputError(
                f"{name}: count_noise={count_noise} has no effect with a fixed clip: "
                "give a quantile, or leave it out"
            )
        return Mechanism(name, float(clip), noise_multiplier)
    check_number(f"{name}: quantile", quantile, Bounds(above=0, below=1))
    adaptive = Adaptive(quantile, clip_rate, count_noise)
    return Mechanism(name, float(clip), noise_multiplier, adaptive)
