"""Aggregators: pure functions that combine the cohort's updates on the server.

An aggregator maps one client's update to sums. The engine adds these over clients,
length buckets, tiles and devices, and once per round the aggregator turns the totals
into a step. The engine adds rows by item id, so an aggregator never handles ids.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedpeft_jax.core.roles import ROWS, SHARED
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.federated.updates import ClientUpdate, Sum, Sums


class Aggregator(NamedTuple):
    """How the server combines updates.

    Attributes:
      init: `(server) -> state`, where `server` holds the server's variables
        `{'params': ..., 'rows': ...}`.
      map: `(ClientUpdate of one client, key) -> Sums`. The sums of an update with
        weight 0, an empty place, must be zero. Each client has its own key.
      apply: `(Sums, state, server, key) -> (step, state)`. The server adds the step, a
        tree like `server`, to its variables.
    """

    init: Callable[[PyTree], Any]
    map: Callable[[ClientUpdate, Key], Sums]
    apply: Callable[[Sums, Any, PyTree, Key], tuple[PyTree, Any]]


def mean() -> Aggregator:
    r"""Returns the aggregator whose step is the weighted mean of the cohort's updates.

    .. math:: \Delta = \sum_c w_c \Delta_c / \sum_c w_c

    An item that a client did not touch counts as an update of zero. If all weights are
    zero, the step is zero.

    Source:
      McMahan et al., Communication-efficient learning of deep networks from
      decentralized data, AISTATS 2017, algorithm 1.

    Example:
      >>> update = ClientUpdate(
      ...     jnp.ones(2), {}, jnp.zeros(0, int), jnp.float32(0.5), jnp.float32(0.7)
      ... )
      >>> aggregator, key = mean(), jax.random.key(0)
      >>> step, _ = aggregator.apply(aggregator.map(update, key), (), {}, key)
      >>> step["params"].tolist()
      [1.0, 1.0]
    """

    def map_update(update: ClientUpdate, key: Key) -> Sums:
        del key
        return Sums(
            shared=Sum(_scale(update.shared, update.weight), update.weight),
            rows=Sum(_scale(update.rows, update.weight), None),
            loss=Sum(update.weight * update.loss, update.weight),
        )

    def apply(sums: Sums, state: Any, server: PyTree, key: Key) -> tuple[PyTree, Any]:
        del server, key
        assert sums.shared.weight is not None
        factor = 1.0 / divisor(sums.shared.weight)
        step = {
            SHARED: _scale(sums.shared.value, factor),
            ROWS: _scale(sums.rows.value, factor),
        }
        return step, state

    return Aggregator(lambda server: (), map_update, apply)


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


def with_server_optimizer(
    aggregator: Aggregator, optimizer: optax.GradientTransformation
) -> Aggregator:
    """Returns an aggregator whose step an optax optimizer computes from the aggregate.

    The optimizer receives minus the aggregate as its gradient, so `sgd(1.0)` adds the
    aggregate itself. With momentum, rows that no client touched may move.

    Args:
      aggregator: computes the aggregate of the updates.
      optimizer: computes the step. Its state is part of the aggregator's state.

    Source:
      Reddi et al., Adaptive federated optimization, ICLR 2021, algorithm 1.

    Example:
      >>> doubled = with_server_optimizer(mean(), optax.sgd(2.0))
      >>> server, key = {"params": jnp.zeros(2), "rows": {}}, jax.random.key(0)
      >>> update = ClientUpdate(
      ...     jnp.ones(2), {}, jnp.zeros(0, int), jnp.float32(3), jnp.float32(0.7)
      ... )
      >>> sums, state = doubled.map(update, key), doubled.init(server)
      >>> doubled.apply(sums, state, server, key)[0]["params"].tolist()
      [2.0, 2.0]
    """

    def init(server: PyTree) -> Any:
        return aggregator.init(server), optimizer.init(server)

    def apply(sums: Sums, state: Any, server: PyTree, key: Key) -> tuple[PyTree, Any]:
        aggregate, inner = aggregator.apply(sums, state[0], server, key)
        gradient = jax.tree.map(jnp.negative, aggregate)
        step, outer = optimizer.update(gradient, state[1], server)
        return step, (inner, outer)

    return Aggregator(init, aggregator.map, apply)


def divisor(weight: Array) -> Array:
    """Returns the weight, and 1 where there is none.

    Args:
      weight: float32[...], sums of weights.

    Example:
      >>> divisor(jnp.array([0.5, 0.0])).tolist()
      [0.5, 1.0]
    """
    return jnp.where(weight > 0, weight, 1.0)


def _scale(tree: PyTree, factor: Array) -> PyTree:
    return jax.tree.map(lambda x: x * factor, tree)


AGGREGATORS: dict[str, Callable[..., Aggregator]] = {
    "mean": mean,
    "row_mean": row_mean,
    "sparse_row_mean": sparse_row_mean,
}
"""Factories by the names that the setting `aggregator` takes."""
