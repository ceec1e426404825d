"""The mean of each item row over the clients that touched it."""

from typing import Any

import jax
import jax.numpy as jnp

from fedpeft_jax.core.roles import ROWS
from fedpeft_jax.core.typing import Key, PyTree
from fedpeft_jax.federated.aggregators.base import Aggregator, divisor, mean
from fedpeft_jax.federated.updates import ClientUpdate, Sums


def row_mean() -> Aggregator:
    r"""Returns the aggregator that averages each row over the clients that touched it.

    .. math:: \Delta(i) = \sum_{c \ni i} w_c \Delta_c(i) / \sum_{c \ni i} w_c

    Shared parameters are combined as in `mean`. A row that few clients touch then moves
    as far as a row that many touch, and a row that no client touched does not move.

    Example:
      >>> update = ClientUpdate(
      ...     {}, jnp.ones((1, 2)), jnp.array([7]), jnp.float32(3), jnp.float32(0.7)
      ... )
      >>> row_mean().map(update, jax.random.key(0)).rows.weight.tolist()
      [3.0]
    """
    plain = mean()

    def map_update(update: ClientUpdate, key: Key) -> Sums:
        sums = plain.map(update, key)
        weight = jnp.broadcast_to(update.weight, update.item_ids.shape)
        return sums._replace(rows=sums.rows._replace(weight=weight))

    def apply(sums: Sums, state: Any, server: PyTree, key: Key) -> tuple[PyTree, Any]:
        step, state = plain.apply(sums, state, server, key)
        assert sums.rows.weight is not None
        weight = divisor(sums.rows.weight)
        rows = jax.tree.map(
            lambda x: x / weight.reshape((-1,) + (1,) * (x.ndim - 1)), sums.rows.value
        )
        return {**step, ROWS: rows}, state

    return Aggregator(plain.init, map_update, apply)
