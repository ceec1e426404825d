"""Aggregators: pure functions that combine the cohort's updates on the server.

An aggregator maps one client's update to statistics that simply add up, over clients,
length buckets, chunks and devices, and applies the sums once a round. The engine does
the adding; per-item statistics are added by item id, so an aggregator never handles
ids.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedpeft_jax.core.roles import ROWS, SHARED
from fedpeft_jax.core.typing import Array, Key, PyTree


class ClientUpdate(NamedTuple):
    """All that leaves a client.

    Attributes:
      shared: after - before of the shared parameters.
      rows: after - before of the gathered rows, arrays [K, ...].
      item_ids: int32[K], which items the rows are; `num_items` on padding.
      weight: float32[], the number of the client's positives; 0 for an empty place.
    """

    shared: PyTree
    rows: PyTree
    item_ids: Array
    weight: Array


class Statistics(NamedTuple):
    """Sums over clients.

    Attributes:
      dense: any tree, added as it is.
      rows: any tree; from `map`, arrays [K, ...], one value for each gathered row; to
        `apply`, arrays [I, ...], added up by item.
    """

    dense: PyTree
    rows: PyTree


class Aggregator(NamedTuple):
    """How the server combines updates.

    Attributes:
      init: `(params) -> state`, with `params = {'params': ..., 'rows': ...}`.
      map: `(ClientUpdate of one client) -> Statistics`.
      apply: `(Statistics, state, params, key) -> (update, state)`; the server adds the
        update, a tree like `params`, to its parameters.
    """

    init: Callable[[PyTree], Any]
    map: Callable[[ClientUpdate], Statistics]
    apply: Callable[[Statistics, Any, PyTree, Key], tuple[PyTree, Any]]


def _scale(tree: PyTree, factor: Array) -> PyTree:
    return jax.tree.map(lambda x: x * factor, tree)


def mean() -> Aggregator:
    r"""The data-size-weighted mean of the cohort's updates.

    .. math:: \Delta = \sum_c w_c \Delta_c / \sum_c w_c

    An item that a client did not touch counts as an update of zero.

    Source:
      McMahan et al., Communication-efficient learning of deep networks from
      decentralized data, AISTATS 2017, algorithm 1.

    Example:
      >>> update = ClientUpdate(jnp.ones(2), {}, jnp.zeros(0, int), jnp.float32(3))
      >>> mean().map(update).dense["shared"].tolist()
      [3.0, 3.0]
    """

    def map_update(update: ClientUpdate) -> Statistics:
        dense = {
            "shared": _scale(update.shared, update.weight),
            "weight": update.weight,
        }
        return Statistics(dense, {"sum": _scale(update.rows, update.weight)})

    def apply(
        statistics: Statistics, state: Any, params: PyTree, key: Key
    ) -> tuple[PyTree, Any]:
        del params, key
        factor = 1.0 / jnp.maximum(statistics.dense["weight"], 1.0)
        update = {
            SHARED: _scale(statistics.dense["shared"], factor),
            ROWS: _scale(statistics.rows["sum"], factor),
        }
        return update, state

    return Aggregator(lambda params: (), map_update, apply)


def row_mean() -> Aggregator:
    r"""Like `mean`, but each row is averaged over the clients that touched it.

    .. math:: \Delta(i) = \sum_{c \ni i} w_c \Delta_c(i) / \sum_{c \ni i} w_c

    Shared parameters are combined as in `mean`. A row that few clients touch then moves
    as far as a popular one; a row that nobody touched stays.

    Example:
      >>> update = ClientUpdate({}, jnp.ones((1, 2)), jnp.array([7]), jnp.float32(3))
      >>> row_mean().map(update).rows["weight"].tolist()
      [3.0]
    """
    plain = mean()

    def map_update(update: ClientUpdate) -> Statistics:
        dense, rows = plain.map(update)
        weight = jnp.broadcast_to(update.weight, update.item_ids.shape)
        return Statistics(dense, {**rows, "weight": weight})

    def apply(
        statistics: Statistics, state: Any, params: PyTree, key: Key
    ) -> tuple[PyTree, Any]:
        update, state = plain.apply(statistics, state, params, key)
        weight = jnp.maximum(statistics.rows["weight"], 1.0)
        rows = jax.tree.map(
            lambda x: x / weight.reshape((-1,) + (1,) * (x.ndim - 1)),
            statistics.rows["sum"],
        )
        return {**update, ROWS: rows}, state

    return Aggregator(plain.init, map_update, apply)


def with_server_optimizer(
    aggregator: Aggregator, optimizer: optax.GradientTransformation
) -> Aggregator:
    """Returns an aggregator whose update an optax optimizer turns into the server step.

    The optimizer sees minus the aggregate as its gradient (`sgd(1.0)` adds the
    aggregate itself). With momentum, rows that no client touched may move.

    Source:
      Reddi et al., Adaptive federated optimization, ICLR 2021, algorithm 1.

    Example:
      >>> doubled = with_server_optimizer(mean(), optax.sgd(2.0))
      >>> params = {"params": jnp.zeros(2), "rows": {}}
      >>> update = ClientUpdate(jnp.ones(2), {}, jnp.zeros(0, int), jnp.float32(3))
      >>> state = doubled.init(params)
      >>> step, _ = doubled.apply(doubled.map(update), state, params, jax.random.key(0))
      >>> step["params"].tolist()
      [2.0, 2.0]
    """

    def init(params: PyTree) -> Any:
        return aggregator.init(params), optimizer.init(params)

    def apply(
        statistics: Statistics, state: Any, params: PyTree, key: Key
    ) -> tuple[PyTree, Any]:
        aggregate, inner = aggregator.apply(statistics, state[0], params, key)
        gradient = jax.tree.map(jnp.negative, aggregate)
        step, outer = optimizer.update(gradient, state[1], params)
        return step, (inner, outer)

    return Aggregator(init, aggregator.map, apply)


AGGREGATORS: dict[str, Callable[..., Aggregator]] = {"mean": mean, "row_mean": row_mean}
