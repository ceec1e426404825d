"""Trimmed means and medians, which single clients cannot move far.

Both are taken of each coordinate of the shared parameters alone, over the clients that
answered. Item rows keep the weighted mean: only a few clients touch a row, and all
others have a zero there, so that a median over the cohort would be zero. `max_row_norm`
bounds what one client adds to that mean.

Yin et al., Byzantine-robust distributed learning: towards optimal statistical rates,
ICML 2018.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import Array, Key
from fedpeft_jax.federated.aggregators.base import Aggregator, bound_norm, mean, scale
from fedpeft_jax.federated.updates import ClientUpdate, Sum, Sums

Statistic = Callable[[Array, Array], Array]
"""`(values [C, ...] ascending along C, number of clients n int32[]) -> [...]`.

Only the first n values are those of clients.
"""


def trimmed_mean(trim: float = 0.1, max_row_norm: float | None = None) -> Aggregator:
    r"""Returns the aggregator that leaves out the extremes of every coordinate.

    Of the n values of a coordinate of the shared parameters, the largest and the
    smallest :math:`\lfloor trim \, n \rfloor` are left out, and the others are
    averaged. All clients count the same, whatever their weights, because a client
    reports its own weight. Item rows are combined as in `mean`.

    The server holds the shared parameters of all clients of a round at once, C times
    their size.

    Args:
      trim: share of the clients that is left out at each end, at least 0 and below 0.5.
      max_row_norm: the largest L2 norm of the rows of one client, to which they are
        scaled; None for no bound.

    Raises:
      InputError: for a share or a norm that is out of range.

    Example:
      >>> updates = Sum(jnp.array([1.0, -90.0, 3.0, 2.0]), jnp.ones(4))
      >>> total = trimmed_mean(trim=0.25).combine(updates)
      >>> float(total.value / total.weight)
      1.5
    """
    if not 0 <= trim < 0.5:
        raise InputError(f"trimmed_mean: trim must be in [0, 0.5), got {trim}")

    def statistic(ordered: Array, size: Array) -> Array:
        length = ordered.shape[0]
        # The products are exact integers only without float32's rounding.
        counts = np.floor(np.round(trim * np.arange(length + 1), 9)).astype(np.int32)
        cut = jnp.asarray(counts)[size]
        place = jnp.arange(length).reshape((-1,) + (1,) * (ordered.ndim - 1))
        inner = (place >= cut) & (place < size - cut)
        return jnp.sum(jnp.where(inner, ordered, 0), axis=0) / (size - 2 * cut)

    return _by_coordinate("trimmed_mean", statistic, max_row_norm)


def median(max_row_norm: float | None = None) -> Aggregator:
    r"""Returns the aggregator that takes the median of every coordinate.

    All clients count the same, whatever their weights, and an even number of clients
    has the mean of the two values in the middle. Less than half of the clients cannot
    move a coordinate beyond the range of the others. Item rows are combined as in
    `mean`.

    The server holds the shared parameters of all clients of a round at once, C times
    their size.

    Args:
      max_row_norm: the largest L2 norm of the rows of one client, to which they are
        scaled; None for no bound.

    Raises:
      InputError: if `max_row_norm` is not above 0.

    Example:
      >>> weights = jnp.array([1.0, 1.0, 5.0, 0.0])
      >>> total = median().combine(Sum(jnp.array([1.0, 99.0, 2.0, 0.0]), weights))
      >>> float(total.value / total.weight)
      2.0
    """

    def statistic(ordered: Array, size: Array) -> Array:
        low = jnp.take(ordered, (size - 1) // 2, axis=0)
        return (low + jnp.take(ordered, size // 2, axis=0)) / 2

    return _by_coordinate("median", statistic, max_row_norm)


def _by_coordinate(
    name: str, statistic: Statistic, max_row_norm: float | None
) -> Aggregator:
    if max_row_norm is not None and not max_row_norm > 0:
        raise InputError(f"{name}: max_row_norm must be above 0, got {max_row_norm}")
    plain = mean()

    def map_update(update: ClientUpdate, key: Key) -> Sums:
        rows = update.rows
        if max_row_norm is not None:
            rows = bound_norm(rows, max_row_norm)
        sums = plain.map(update._replace(rows=rows), key)
        return sums._replace(shared=Sum(update.shared, update.weight))

    def combine(updates: Sum) -> Sum:
        assert updates.weight is not None
        answered, total = updates.weight > 0, jnp.sum(updates.weight)
        size = jnp.sum(answered, dtype=jnp.int32)

        def of_clients(values: Array) -> Array:
            here = answered.reshape((-1,) + (1,) * (values.ndim - 1))
            ordered = jnp.sort(jnp.where(here, values, jnp.inf), axis=0)
            found = statistic(ordered, jnp.maximum(size, 1))
            # An update that is not finite may not hide among the extremes.
            finite = jnp.all(jnp.isfinite(values) | ~here, axis=0)
            return jnp.where(size > 0, jnp.where(finite, found, jnp.nan), 0)

        # `apply` divides by the sum of the weights, by which it also divides the rows.
        return Sum(scale(jax.tree.map(of_clients, updates.value), total), total)

    return plain._replace(map=map_update, combine=combine)
