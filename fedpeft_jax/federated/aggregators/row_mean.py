"""The mean of each item row over the clients that touched it, always or if few do."""

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


def sparse_row_mean(density: float = 0.05) -> Aggregator:
    r"""Returns `row_mean` where a cohort touches few rows, and otherwise `mean`.

    .. math:: d = \frac{1}{I} \sum_i \sum_{c \ni i} w_c / \sum_c w_c

    The density d is the weighted share of the cohort that touches a row, averaged over
    the rows. `mean` scales the step of a row by that share, so that rows hardly move if
    d is small: where histories are short and the catalogue is large.

    Args:
      density: the least density at which a round uses `mean`, above 0 and at most 1.

    Raises:
      ValueError: for a density that is out of bounds.

    Example:
      >>> update = ClientUpdate(
      ...     {}, jnp.ones((1, 2)), jnp.array([7]), jnp.float32(3), jnp.float32(0.7)
      ... )
      >>> sparse_row_mean().map(update, jax.random.key(0)).rows.weight.tolist()
      [3.0]
    """
    if not 0 < density <= 1:
        raise ValueError(f"density must be above 0 and at most 1, got {density}")
    by_row, plain = row_mean(), mean()

    def apply(sums: Sums, state: Any, server: PyTree, key: Key) -> tuple[PyTree, Any]:
        step, state = by_row.apply(sums, state, server, key)
        whole, _ = plain.apply(sums, state, server, key)
        assert sums.shared.weight is not None and sums.rows.weight is not None
        share = jnp.mean(sums.rows.weight) / divisor(sums.shared.weight)
        rows = jax.tree.map(
            lambda few, many: jnp.where(share < density, few, many),
            step[ROWS],
            whole[ROWS],
        )
        return {**step, ROWS: rows}, state

    return Aggregator(by_row.init, by_row.map, apply)
