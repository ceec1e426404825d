"""The mean of updates whose norms the server bounds.

Sun et al., Can you really backdoor federated learning?, arXiv 1911.07963, section 4.
"""

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import Key
from fedpeft_jax.federated.aggregators.base import Aggregator, bound_norm, mean
from fedpeft_jax.federated.updates import ClientUpdate, Sums


def norm_bounded_mean(max_norm: float) -> Aggregator:
    r"""Returns the weighted mean of updates that are scaled to a bounded L2 norm.

    .. math::
      \Delta = \sum_c w_c \Delta_c \min(1, C / \lVert \Delta_c \rVert_2) / \sum_c w_c

    One client then moves the variables by at most its share of the weights times C.
    The norm is that of shared parameters and rows together; rows that a client did not
    touch are zero, so that it is exact. The upload stage `clip_by_norm` is the same
    bound on the client, where an attacker can leave it out. The weights are those that
    clients report; `client_weights=uniform` bounds these, too.

    Args:
      max_norm: C, the largest norm of one update, above 0.

    Raises:
      InputError: if `max_norm` is not above 0.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> ids, weight, loss = jnp.zeros(0, int), jnp.float32(2), jnp.float32(0.7)
      >>> update = ClientUpdate(jnp.array([3.0, 4.0]), {}, ids, weight, loss)
      >>> sums = norm_bounded_mean(max_norm=1.0).map(update, jax.random.key(0))
      >>> [round(float(x), 6) for x in sums.shared.value]
      [1.2, 1.6]
    """
    if not max_norm > 0:
        raise InputError(f"norm_bounded_mean: max_norm must be above 0, got {max_norm}")
    plain = mean()

    def map_update(update: ClientUpdate, key: Key) -> Sums:
        shared, rows = bound_norm((update.shared, update.rows), max_norm)
        return plain.map(update._replace(shared=shared, rows=rows), key)

    return plain._replace(map=map_update)
