"""Local losses, which compare positives with negatives, as means over the pairs."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from fedpeft_jax.core.typing import Array

Loss: TypeAlias = Callable[[Array, Array, Array], Array]
"""`(positives float32[N], negatives float32[N, M], mask bool[N]) -> float32[]`.

The arguments are scores and a mask; the result is a mean over the valid pairs.
"""


def masked_mean(values: Array, mask: Array) -> Array:
    """Returns the mean of the values that are not padding.

    Args:
      values: float32[N, ...].
      mask: bool[N], False on padding.

    Returns:
      float32[]; zero, and not NaN, if everything is padding.

    Example:
      >>> float(masked_mean(jnp.array([1.0, 3.0, 99.0]), jnp.array([True, True, False])))
      2.0
      >>> float(masked_mean(jnp.array([1.0, 3.0]), jnp.array([False, False])))
      0.0
    """  # noqa: E501
    keep = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    keep = jnp.broadcast_to(keep, values.shape)
    total = jnp.sum(jnp.where(keep, values, 0.0))
    return total / jnp.maximum(jnp.sum(keep), 1)


def bpr(positives: Array, negatives: Array, mask: Array) -> Array:
    r"""Returns the loss of Bayesian personalised ranking (BPR).

    It is small if every positive i scores above its negatives j:

    .. math:: -\frac{1}{|P|} \sum_{(i, j) \in P} \ln \sigma(s_i - s_j)

    Args:
      positives: float32[N], scores of the positives.
      negatives: float32[N, M], scores of each positive's negatives.
      mask: bool[N], False on padding.

    Returns:
      float32[], the mean over the valid pairs, in nats.

    Source:
      Rendle et al., BPR: Bayesian personalized ranking from implicit feedback,
      UAI 2009, section 4.1.

    Example:
      >>> mask = jnp.array([True, False])
      >>> round(float(bpr(jnp.zeros(2), jnp.zeros((2, 1)), mask)), 4)
      0.6931
    """
    return masked_mean(jax.nn.softplus(negatives - positives[:, None]), mask)


def bce(positives: Array, negatives: Array, mask: Array) -> Array:
    r"""Returns the binary cross-entropy of positives and negatives.

    A score is interpreted as the log-odds that the client has the item:

    .. math:: -\frac{1}{N} \sum_{i=1}^N \frac{1}{1 + M} \Big(\ln \sigma(s_i)
              + \sum_{m=1}^M \ln (1 - \sigma(s_{im}))\Big)

    Args:
      positives: float32[N], scores of the positives.
      negatives: float32[N, M], scores of each positive's negatives.
      mask: bool[N], False on padding.

    Returns:
      float32[], the mean over the positives and their negatives, in nats.

    Source:
      He et al., Neural collaborative filtering, WWW 2017, equation 7.

    Example:
      >>> mask = jnp.array([True, False])
      >>> round(float(bce(jnp.zeros(2), jnp.zeros((2, 4)), mask)), 4)
      0.6931
    """
    scores = jnp.concatenate([-positives[:, None], negatives], axis=1)
    return masked_mean(jax.nn.softplus(scores), mask)


LOSSES: dict[str, Callable[[], Loss]] = {"bpr": lambda: bpr, "bce": lambda: bce}
"""Factories by the names that the setting `loss` takes."""
