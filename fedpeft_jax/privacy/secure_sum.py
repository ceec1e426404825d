r"""Secure aggregation: the server learns the sum of updates, and no update alone.

Bonawitz et al., Practical secure aggregation for privacy-preserving machine learning,
CCS 2017. Client i sends its levels plus masks, all modulo 2^32,

.. math:: y_i = x_i + G(b_i) + \sum_{j > i} G(s_{ij}) - \sum_{j < i} G(s_{ij}),

where G expands a seed, :math:`s_{ij}` is a seed that i and j agreed on, and
:math:`b_i` is a secret of i alone. In the sum the pairwise masks cancel. All clients
share their secrets among each other. After the messages have arrived, the server
recovers :math:`b_i` of every client that sent its message, and the secret key, hence
the pairwise seeds, of every client that did not; never both of one client.

What is exact: the arithmetic of levels, masks, sums and secret sharing, the order of
the steps, and who can compute what from which values. The server's half of the
simulation reads nothing but messages, public keys and revealed shares.

What is simulated: all clients run in one process, from one random key. Messages are
neither encrypted nor signed. The Diffie-Hellman exchange runs in the integers modulo
2^127 - 1, whose discrete logarithms can be computed, and the masks come from JAX's
Threefry with seeds of 64 bits. **A deployment needs a group and a generator that are
secure.** Clients vanish before or after they send their message, and none of them lies.

Cost, for m clients with n numbers each, d of whom vanish: m (m + 1) / 2 expansions of n
words for the clients and (1 + d) (m - d) for the server, m^2 / 2 modular powers, and
2 m^2 t products of Python integers for the shares. The memory is that of a few arrays
[m, n] and of 16 masks. Measured on one core of a busy machine: 2.4 s for m = 100,
n = 15,000, t = 67 and 23 s for m = 300, n = 1,000, t = 201, half of it for the shares.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.bounds import Bounds, check_number
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.privacy.fixed_point import (
    FixedPoint,
    check_range,
    from_fixed,
    to_fixed,
)
from fedpeft_jax.privacy.masking import mask, public_key, unmask
from fedpeft_jax.privacy.secret_sharing import PRIME, recover_secrets, share_secrets


class SecureSum(NamedTuple):
    """The sum, and everything that the server saw on the way to it.

    Attributes:
      total: tree of float32 arrays, the sum over the clients whose message arrived.
      levels: tree of uint32 arrays, the same sum as exact levels modulo 2^32.
      senders: int[A], the clients whose message arrived, in ascending order.
      messages: tree of uint32 arrays [A, ...], their masked messages.
      self_secrets: recovered secrets of self masks, by client: those of the senders.
      secret_keys: recovered secret keys, by client: those of the clients that vanished.
      num_clipped: how many of the senders' numbers were clipped. The server does not
        see it; it is a figure for whoever runs the simulation.
    """

    total: PyTree
    levels: PyTree
    senders: np.ndarray
    messages: PyTree
    self_secrets: dict[int, int]
    secret_keys: dict[int, int]
    num_clipped: int


def secure_sum(
    updates: PyTree,
    key: Key,
    answered: np.ndarray | Array,
    fixed_point: FixedPoint,
    *,
    threshold: int | None = None,
    unmasking: np.ndarray | Array | None = None,
    stochastic: bool = False,
) -> SecureSum:
    """Returns the sum of the updates of the clients that answered.

    It runs on the host and cannot be traced.

    Args:
      updates: tree of float arrays [m, ...], each client's update as the server would
        decode it, clipped and noised as the client sends it. Rows must be dense: ids of
        rows that a client touched would reveal what the masks hide.
      key: random key of all secrets, and of stochastic rounding.
      answered: bool[m], whose message arrives. All m clients have shared their secrets
        before.
      fixed_point: the format of the numbers; its range is checked for m clients.
      threshold: t, how many clients recover a secret together; None means more than two
        thirds of m. Below t clients that collude with the server learn nothing.
      unmasking: bool[m], which of the clients that answered are still there to reveal
        shares; None means all of them.
      stochastic: whether numbers are rounded to levels at random, without bias.

    Raises:
      InputError: if a sum could overflow, if too few clients are left to unmask the
        sum, or if an array does not have the right type or shape.

    Example:
      >>> updates = {"w": jnp.array([[0.5, 1.0], [0.25, -2.0], [9.0, 9.0]])}
      >>> answered = np.array([True, True, False])
      >>> fixed = FixedPoint(bound=10.0, fraction_bits=16)
      >>> key = jax.random.key(0)
      >>> found = secure_sum(updates, key, answered, fixed, threshold=2)
      >>> found.total["w"].tolist(), sorted(found.secret_keys)
      ([0.75, -1.0], [2])
    """
    answered = _mask("answered", answered)
    num_clients = len(answered)
    left = answered if unmasking is None else _mask("unmasking", unmasking)
    if left.shape != answered.shape or np.any(left & ~answered):
        raise InputError("unmasking: only clients that answered can be left to unmask")
    check_range(fixed_point, num_clients)
    threshold = 2 * num_clients // 3 + 1 if threshold is None else threshold
    check_number("threshold", threshold, Bounds(1, most=num_clients), whole=True)
    _check_tree(updates, num_clients)
    secrets, rounding = jax.random.split(key)

    # Every client: quantise, agree on seeds, share the secrets.
    numbers = _flatten(updates, num_clients)
    rows, counts = np.empty(numbers.shape, np.uint32), np.empty(num_clients, int)
    for i in range(num_clients):
        key_of_client = jax.random.fold_in(rounding, i) if stochastic else None
        rows[i], counts[i] = _quantize(numbers[i], fixed_point, key_of_client)
    polynomials = _integers(secrets, (2 * num_clients, num_clients))[:, :threshold]
    keys = polynomials[:num_clients, 0].tolist()
    self_secrets = polynomials[num_clients:, 0].tolist()
    public = [public_key(x) for x in keys]
    shares = share_secrets(polynomials, num_clients).reshape(2, num_clients, -1)

    # Those that answer: send the masked levels.
    senders, missing = np.flatnonzero(answered), np.flatnonzero(~answered)
    messages = mask(rows, keys, self_secrets, public)[senders]

    # The server: add the messages, recover secrets from revealed shares, unmask.
    holders = np.flatnonzero(left)[:threshold].tolist()
    if len(holders) < threshold:
        raise InputError(
            f"{len(holders)} clients are left to unmask the sum, and threshold="
            f"{threshold}: repeat the round, or set a lower threshold for later rounds"
        )
    revealed = [reveal(shares[:, :, h], senders, missing) for h in holders]
    of_senders = np.stack([x for x, _ in revealed], axis=1)
    of_missing = np.stack([x for _, x in revealed], axis=1)
    found_secrets = recover_secrets(of_senders, holders).tolist()
    found_keys = recover_secrets(of_missing, holders).tolist()
    known_secrets = dict(zip(senders.tolist(), found_secrets, strict=True))
    known_keys = dict(zip(missing.tolist(), found_keys, strict=True))
    masked_total = messages.sum(axis=0, dtype=np.uint32)
    total = unmask(masked_total, known_secrets, known_keys, public)

    return SecureSum(
        total=_unflatten(np.asarray(from_fixed(total, fixed_point)), updates),
        levels=_unflatten(total, updates),
        senders=senders,
        messages=_unflatten(messages, updates),
        self_secrets=known_secrets,
        secret_keys=known_keys,
        num_clipped=int(counts[senders].sum()),
    )


def reveal(
    shares: np.ndarray, senders: np.ndarray, missing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the shares that an honest client gives to the server.

    Both secrets of a client together would unmask its message. If the threshold is more
    than half of the clients, a server that shows different lists to different clients
    cannot recover both either.

    Args:
      shares: integers [2, m] as dtype object, the client's shares of every client's
        secret key and self secret.
      senders: int[A], the clients whose message arrived, as the server says.
      missing: int[B], the other clients.

    Returns:
      Shares [A] of the senders' self secrets, and shares [B] of the others' keys.

    Raises:
      InputError: if a client is in both lists.

    Example:
      >>> shares = np.array([[10, 11], [20, 21]], object)
      >>> reveal(shares, senders=np.array([1]), missing=np.array([0]))
      (array([21], dtype=object), array([10], dtype=object))
    """
    both = np.intersect1d(senders, missing)
    if both.size:
        raise InputError(
            f"client {both[0]} is listed as answering and as missing: its shares of "
            "both secrets would unmask its message, list it once"
        )
    return shares[1, senders], shares[0, missing]


def _mask(name: str, given: np.ndarray | Array) -> np.ndarray:
    found = np.asarray(given)
    if found.ndim != 1 or found.dtype != bool or not found.size:
        raise InputError(f"{name} must be bool[m], got {found.dtype}{[*found.shape]}")
    return found


def _check_tree(updates: PyTree, num_clients: int) -> None:
    if not jax.tree.leaves(updates):
        raise InputError("updates: the tree has no array, give at least one")
    for path, x in jax.tree_util.tree_leaves_with_path(updates):
        name = jax.tree_util.keystr(path) or "the array"
        if not jnp.issubdtype(jnp.result_type(x), jnp.floating):
            raise InputError(
                f"updates: {name} is {jnp.result_type(x)}, and only float arrays are "
                "summed: leave it out, and scatter rows into dense arrays"
            )
        if jnp.shape(x)[:1] != (num_clients,):
            raise InputError(
                f"updates: {name} has the shape {jnp.shape(x)}, its first axis must "
                f"be that of the {num_clients} clients in answered"
            )


_quantize = jax.jit(to_fixed, static_argnums=1)


def _integers(key: Key, shape: tuple[int, ...]) -> np.ndarray:
    """Returns uniform elements of the field, as dtype object."""
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    words = generator.integers(2**32, size=(4, *shape)).astype(object)
    # 128 bits modulo the prime: uniform but for a part of 2^-126.
    return sum(word << 32 * place for place, word in enumerate(words)) % PRIME


def _flatten(tree: PyTree, num_clients: int) -> np.ndarray:
    """Returns the arrays [m, ...] of a tree side by side, float32[m, n]."""
    rows = [
        np.asarray(x, np.float32).reshape(num_clients, -1)
        for x in jax.tree.leaves(tree)
    ]
    return np.concatenate(rows, axis=1)


def _unflatten(rows: np.ndarray, like: PyTree) -> PyTree:
    """Returns rows [..., n] as arrays [..., *shape], for leaves [m, *shape]."""
    leaves, structure = jax.tree.flatten(like)
    shapes = [jnp.shape(x)[1:] for x in leaves]
    ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
    parts = np.split(rows, ends, axis=-1)
    found = [
        part.reshape((*rows.shape[:-1], *shape))
        for part, shape in zip(parts, shapes, strict=True)
    ]
    return jax.tree.unflatten(structure, found)
