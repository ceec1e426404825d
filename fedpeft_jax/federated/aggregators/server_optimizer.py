"""Server optimizers, which compute the step from an aggregate.

Reddi et al., Adaptive federated optimization, ICLR 2021, algorithm 1.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from fedpeft_jax.core.typing import Key, PyTree
from fedpeft_jax.federated.aggregators.base import Aggregator
from fedpeft_jax.federated.updates import Sums


def with_server_optimizer(
    aggregator: Aggregator, optimizer: optax.GradientTransformation
) -> Aggregator:
    """Returns an aggregator whose step an optax optimizer computes from the aggregate.

    The optimizer receives minus the aggregate as its gradient, so `sgd(1.0)` adds the
    aggregate itself. With momentum, rows that no client touched may move.

    Args:
      aggregator: computes the aggregate of the updates.
      optimizer: computes the step. Its state is part of the aggregator's state.

    Example:
      >>> from fedpeft_jax.federated.aggregators.base import mean
      >>> from fedpeft_jax.federated.updates import ClientUpdate
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

    return aggregator._replace(init=init, apply=apply)
