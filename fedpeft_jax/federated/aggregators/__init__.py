"""Aggregators, and the registry of those that a setting can name."""

from collections.abc import Callable

from fedpeft_jax.federated.aggregators.base import (
    Aggregator,
    check_collected,
    divisor,
    mean,
    mean_loss,
)
from fedpeft_jax.federated.aggregators.norm_bounded_mean import norm_bounded_mean
from fedpeft_jax.federated.aggregators.order_statistics import median, trimmed_mean
from fedpeft_jax.federated.aggregators.row_mean import row_mean, sparse_row_mean
from fedpeft_jax.federated.aggregators.server_optimizer import with_server_optimizer

AGGREGATORS: dict[str, Callable[..., Aggregator]] = {
    "mean": mean,
    "row_mean": row_mean,
    "sparse_row_mean": sparse_row_mean,
    "norm_bounded_mean": norm_bounded_mean,
    "trimmed_mean": trimmed_mean,
    "median": median,
}
"""Factories by the names that the setting `aggregator` takes."""

__all__ = [
    "AGGREGATORS",
    "Aggregator",
    "check_collected",
    "divisor",
    "mean",
    "mean_loss",
    "median",
    "norm_bounded_mean",
    "row_mean",
    "sparse_row_mean",
    "trimmed_mean",
    "with_server_optimizer",
]
