"""Secrets that any t of n holders recover together, and fewer know nothing of.

Shamir, How to share a secret, Communications of the ACM 1979. A secret is the value at
zero of a random polynomial of degree t - 1 over a prime field, and holder h receives
its value at h + 1. The arithmetic is exact, with Python's integers.
"""

import numpy as np

from fedpeft_jax.core.errors import InputError

PRIME = 2**127 - 1
"""The number of elements of the field, a Mersenne prime."""


def share_secrets(coefficients: np.ndarray, num_holders: int) -> np.ndarray:
    r"""Returns the shares of secrets: :math:`\sum_k a_k (h + 1)^k \bmod p`.

    Args:
      coefficients: integers [S, t] as dtype object, one polynomial for each secret. The
        first column holds the secrets; the others must be uniform in 0..p - 1.
      num_holders: n, at least t and less than p.

    Returns:
      Integers [S, n] as dtype object, one column for each holder.

    Raises:
      InputError: if there are fewer holders than coefficients.

    Example:
      >>> share_secrets(np.array([[7, 2]], object), num_holders=3)
      array([[9, 11, 13]], dtype=object)
    """
    threshold = coefficients.shape[1]
    if not 1 <= threshold <= num_holders:
        raise InputError(
            f"a threshold of {threshold} must be from 1 to the number of holders, "
            f"{num_holders}"
        )
    powers = [
        [pow(h + 1, k, PRIME) for h in range(num_holders)] for k in range(threshold)
    ]
    return (coefficients @ np.array(powers, object)) % PRIME


def recover_secrets(shares: np.ndarray, holders: list[int]) -> np.ndarray:
    r"""Returns secrets from the shares of t holders, by Lagrange's formula at zero.

    :math:`\sum_h y_h \prod_{g \ne h} x_g / (x_g - x_h) \bmod p`, with x = h + 1.

    Args:
      shares: integers [S, t] as dtype object, one column for each of the holders.
      holders: the t distinct indices of the holders. With fewer holders than the
        secrets were shared with, the result is an unrelated number.

    Returns:
      Integers [S] as dtype object.

    Raises:
      InputError: if a holder is given twice.

    Example:
      >>> recover_secrets(np.array([[9, 13]], object), holders=[0, 2])
      array([7], dtype=object)
    """
    points = [holder + 1 for holder in holders]
    if len(set(points)) < len(points):
        raise InputError(f"holders={holders} must be distinct: give one share of each")
    weights = []
    for x in points:
        above = below = 1
        for other in points:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return (shares @ np.array(weights, object)) % PRIME
