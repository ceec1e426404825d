"""Clients that lie: the server decodes minus a multiple of their updates.

The attackers of a run are drawn once, client by client, and lie in all rounds.
"""

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.keys import NO_ROUND, ClientPurpose, client_key, purpose_key
from fedpeft_jax.core.typing import Array, Key
from fedpeft_jax.federated.faults import Faults
from fedpeft_jax.federated.updates import ClientUpdate


def attack(
    faults: Faults, key: Key, client_id: Array, update: ClientUpdate
) -> ClientUpdate:
    """Returns the update of one client as the server decodes it, true or not.

    The update is replaced on the server, because no stage of the upload pipeline can
    bound what an attacker sends. Its weight and its loss are true.

    Args:
      faults: the faults of the run.
      key: the run's key for its rounds.
      client_id: int32[].
      update: the true update, decoded.
    """
    if not faults.sign_flip_rate:
        return update
    flips = is_attacker(faults, key, client_id)
    factor = jnp.where(flips, -faults.sign_flip_scale, 1.0)
    shared, rows = jax.tree.map(lambda x: x * factor, (update.shared, update.rows))
    return update._replace(shared=shared, rows=rows)


def is_attacker(faults: Faults, key: Key, client_id: Array | int) -> Array:
    """Returns whether a client flips the sign of its updates, bool[].

    Args:
      faults: the faults of the run.
      key: the run's key for its rounds.
      client_id: int32[].
    """
    own = purpose_key(client_key(key, NO_ROUND, client_id), ClientPurpose.ATTACK)
    return jax.random.uniform(own) < faults.sign_flip_rate


def num_attackers(faults: Faults, key: Key, num_clients: int) -> int:
    """Returns how many of the clients flip the sign of their updates.

    Args:
      faults: the faults of the run.
      key: the run's key for its rounds.
      num_clients: U.

    Example:
      >>> num_attackers(Faults(sign_flip_rate=0.1), jax.random.key(0), 1000)
      112
    """
    if not faults.sign_flip_rate:
        return 0
    each = jax.vmap(lambda client_id: is_attacker(faults, key, client_id))
    return int(np.sum(each(jnp.arange(num_clients))))
