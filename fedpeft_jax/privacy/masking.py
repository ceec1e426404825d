"""Masks that cancel in the sum over clients, and how a server removes the others.

Bonawitz et al., Practical secure aggregation for privacy-preserving machine learning,
CCS 2017, section 4. `secure_sum` runs the whole protocol and says what is simulated.
"""

import functools
import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.typing import Array
from fedpeft_jax.privacy.secret_sharing import PRIME

_GENERATOR = 3
_BLOCK = 16  # masks that are expanded at once


def public_key(secret_key: int) -> int:
    """Returns what a client publishes, a power of the generator.

    Example:
      >>> public_key(4)
      81
    """
    return pow(_GENERATOR, secret_key, PRIME)


def agree(secret_key: int, public: int) -> int:
    """Returns the number that a client and the owner of a public key agree on.

    Diffie and Hellman, New directions in cryptography, IEEE Transactions on Information
    Theory 1976.

    Example:
      >>> agree(4, public_key(5)) == agree(5, public_key(4))
      True
    """
    return pow(public, secret_key, PRIME)


def mask(
    rows: np.ndarray,
    secret_keys: Sequence[int],
    self_secrets: Sequence[int],
    public_keys: Sequence[int],
) -> np.ndarray:
    """Returns the masked messages of all clients.

    Args:
      rows: uint32[m, n], each client's levels.
      secret_keys: m secret keys.
      self_secrets: m secrets of self masks.
      public_keys: m public keys.

    Returns:
      uint32[m, n].

    Example:
      >>> rows = np.zeros((2, 3), np.uint32)
      >>> first, second = mask(rows, [4, 5], [6, 7], [public_key(4), public_key(5)])
      >>> pairs_cancelled = unmask(first + second, {0: 6, 1: 7}, {}, [])
      >>> pairs_cancelled.tolist()
      [0, 0, 0]
    """
    # Both ends of a pair compute one number, so the simulation computes it once.
    pairs = list(itertools.combinations(range(len(rows)), 2))
    numbers = [agree(secret_keys[i], public_keys[j]) for i, j in pairs]
    masked = rows.copy()
    for (i, j), word in zip(pairs, _expand(numbers, rows.shape[1]), strict=True):
        masked[i] += word
        masked[j] -= word
    for i, word in enumerate(_expand(self_secrets, rows.shape[1])):
        masked[i] += word
    return masked


def unmask(
    total: np.ndarray,
    self_secrets: Mapping[int, int],
    secret_keys: Mapping[int, int],
    public_keys: Sequence[int],
) -> np.ndarray:
    """Returns a sum of masked messages without its masks.

    Args:
      total: uint32[n], the sum of the senders' messages.
      self_secrets: the secret of each sender's self mask, by client.
      secret_keys: the secret key of each client that vanished, by client.
      public_keys: the public keys of all clients.

    Returns:
      uint32[n], the sum of the senders' levels.

    Example:
      >>> keys = [public_key(4), public_key(5)]
      >>> messages = mask(np.array([[1], [2]], np.uint32), [4, 5], [6, 7], keys)
      >>> unmask(messages[0], {0: 6}, {1: 5}, keys).tolist()
      [1]
    """
    found = total.copy()
    for word in _expand(list(self_secrets.values()), len(total)):
        found -= word
    for gone, secret_key in secret_keys.items():
        numbers = [agree(secret_key, public_keys[i]) for i in self_secrets]
        words = _expand(numbers, len(total))
        for sender, word in zip(self_secrets, words, strict=True):
            found += -word if sender < gone else word
    return found


def _expand(numbers: Sequence[int], size: int) -> Iterator[np.ndarray]:
    """Yields the mask uint32[size] of each number, whose hash is the seed."""
    digests = [hashlib.sha256(x.to_bytes(16, "little")).digest() for x in numbers]
    data = b"".join(digest[:8] for digest in digests)
    seeds = np.frombuffer(data, "<u4").astype(np.uint32).reshape(-1, 2)
    for start in range(0, len(seeds), _BLOCK):
        block = seeds[start : start + _BLOCK]
        padded = np.pad(block, ((0, _BLOCK - len(block)), (0, 0)))
        yield from np.asarray(_random_words(padded, size))[: len(block)]


@functools.partial(jax.jit, static_argnums=1)
def _random_words(seeds: Array, size: int) -> Array:
    """Returns uint32[S, size] for seeds uint32[S, 2]."""
    keys = jax.random.wrap_key_data(seeds, impl="threefry2x32")
    return jax.vmap(lambda key: jax.random.bits(key, (size,), jnp.uint32))(keys)
