"""Random keys, derived by meaning. This module defines all purposes.

A client's key of a round is ``fold_in(fold_in(fold_in(key, round), client_id),
purpose)``. Two purposes of this module therefore never share random bits, and a result
depends neither on the order of the computation nor on its shapes.
"""

import enum

import jax

from fedpeft_jax.core.typing import Array, Key


class RunPurpose(enum.IntEnum):
    """Purposes for which the key of a run is folded."""

    PRETRAIN = 0
    SERVER = 1
    PRIVATE = 2
    ADAPTER = 3
    ROUNDS = 4
    MERGE = 5


class ClientPurpose(enum.IntEnum):
    """Purposes for which a client's key of a round is folded."""

    NEGATIVES = 0
    SHUFFLE = 1
    DROPOUT = 2
    UPLOAD = 3
    AGGREGATE = 4
    VANISH = 5
    STRAGGLE = 6
    ATTACK = 7
    CANARY = 8


class ServerPurpose(enum.IntEnum):
    """Purposes for which the server folds the key of a round.

    They are larger than every client id.
    """

    AGGREGATE = 0x7FFFFFFF
    RELEASE = 0x7FFFFFFE
    DOWNLOAD = 0x7FFFFFFD


NO_ROUND = 0x7FFFFFFF
"""The round index in the keys of draws that a client makes only once."""


def run_key(seed: int, purpose: RunPurpose) -> Key:
    """Returns the key of a run for one purpose.

    Example:
      >>> key = run_key(0, RunPurpose.ROUNDS)
      >>> key.shape
      ()
    """
    return jax.random.fold_in(jax.random.key(seed), purpose)


def client_key(key: Key, round_: Array | int, client_id: Array | int) -> Key:
    """Returns the key of one client in one round.

    Args:
      key: the run's key for its rounds.
      round_: int32[], index of the round.
      client_id: int32[].
    """
    return jax.random.fold_in(jax.random.fold_in(key, round_), client_id)


def purpose_key(key: Key, purpose: enum.IntEnum) -> Key:
    """Returns a key for one purpose."""
    return jax.random.fold_in(key, int(purpose))
