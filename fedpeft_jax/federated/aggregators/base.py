"""Aggregators: pure functions that combine the cohort's updates on the server.

An aggregator maps one client's update to sums. The engine adds these over clients,
length buckets, tiles and devices, and once per round the aggregator turns the totals
into a step. The engine adds rows by item id, so an aggregator never handles ids. This
file has the contract, the mean, from which other aggregators start, and what they
share.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.roles import ROWS, SHARED, num_bytes
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.federated.updates import ClientUpdate, Sum, Sums

MAX_COLLECTED_BYTES = 2**30
"""The most bytes of shared parameters that `combine` may receive in a round."""


class Aggregator(NamedTuple):
    """How the server combines updates.

    Attributes:
      init: `(server) -> state`, where `server` holds the server's variables
        `{'params': ..., 'rows': ...}`.
      map: `(ClientUpdate of one client, key) -> Sums`. The sums of an update with
        weight 0, an empty place, must be zero. Each client has its own key.
      apply: `(Sums, state, server, key) -> (step, state)`. The server adds the step, a
        tree like `server`, to its variables.
      combine: `(Sum) -> Sum`, for an aggregator that needs the shared parameters of all
        clients at once. It receives what `map` returned as `shared` for each client,
        arrays [C, ...] and weights [C], and returns what takes the place of their sum.
        Places with weight 0 are empty. The server then holds cohort x shared numbers;
        the engine refuses more than `MAX_COLLECTED_BYTES`. None adds them up.
    """

    init: Callable[[PyTree], Any]
    map: Callable[[ClientUpdate, Key], Sums]
    apply: Callable[[Sums, Any, PyTree, Key], tuple[PyTree, Any]]
    combine: Callable[[Sum], Sum] | None = None


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
            shared=Sum(scale(update.shared, update.weight), update.weight),
            rows=Sum(scale(update.rows, update.weight), None),
            loss=Sum(update.weight * update.loss, update.weight),
        )

    def apply(sums: Sums, state: Any, server: PyTree, key: Key) -> tuple[PyTree, Any]:
        del server, key
        assert sums.shared.weight is not None
        factor = 1.0 / divisor(sums.shared.weight)
        step = {
            SHARED: scale(sums.shared.value, factor),
            ROWS: scale(sums.rows.value, factor),
        }
        return step, state

    return Aggregator(lambda server: (), map_update, apply)


def divisor(weight: Array) -> Array:
    """Returns the weight, and 1 where there is none.

    Args:
      weight: float32[...], sums of weights.

    Example:
      >>> divisor(jnp.array([0.5, 0.0])).tolist()
      [0.5, 1.0]
    """
    return jnp.where(weight > 0, weight, 1.0)


def mean_loss(total: Sum) -> Array:
    """Returns the weighted mean of the reported losses, float32[].

    Args:
      total: the weighted sum of the losses and the sum of the weights, float32[] each.

    Example:
      >>> float(mean_loss(Sum(jnp.float32(6), jnp.float32(3))))
      2.0
    """
    assert total.weight is not None
    return total.value / divisor(total.weight)


def scale(tree: PyTree, factor: Array) -> PyTree:
    """Returns a tree with all its arrays multiplied by a factor.

    Args:
      tree: arrays of any shapes.
      factor: float32[].

    Example:
      >>> scale({"w": jnp.ones(2)}, jnp.float32(3))["w"].tolist()
      [3.0, 3.0]
    """
    return jax.tree.map(lambda x: x * factor, tree)


def bound_norm(tree: PyTree, max_norm: float) -> PyTree:
    r"""Returns a tree, scaled to an L2 norm of at most `max_norm`.

    .. math:: x \min(1, C / \lVert x \rVert_2)

    A tree whose squares overflow is returned as zeros, which keeps the bound.

    Args:
      tree: arrays of any shapes, which are one long vector.
      max_norm: C, the largest norm, above 0.

    Example:
      >>> bounded = bound_norm({"w": jnp.array([3.0, 4.0])}, max_norm=1.0)
      >>> [round(float(x), 6) for x in bounded["w"]]
      [0.6, 0.8]
    """
    # For a tree of zeros the quotient is infinite, and the factor is 1.
    return scale(tree, jnp.minimum(1.0, max_norm / optax.tree.norm(tree)))


def check_collected(aggregator: Aggregator, shared: Sum, cohort_size: int) -> None:
    """Raises InputError if an aggregator would collect too many shared parameters.

    Args:
      aggregator: the aggregator.
      shared: what its `map` returns as `shared` for one client, arrays or their shapes.
      cohort_size: C, clients per round.
    """
    size = cohort_size * num_bytes(shared)
    if aggregator.combine and size > MAX_COLLECTED_BYTES:
        raise InputError(
            f"the aggregator would hold the shared parameters of {cohort_size} clients "
            f"at once, {size / 2**30:.1f} GiB: lower `cohort_size`, or use "
            "`aggregator=norm_bounded_mean(max_norm=1.0)`"
        )
