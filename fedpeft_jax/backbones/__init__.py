"""Recommenders, by name."""

from collections.abc import Callable

from fedpeft_jax.backbones.base import (
    Backbone,
    fit_model,
    item_variables,
    merge_adapter,
    merged_factors,
    merged_table,
    schedule_of,
    statistics_of,
)
from fedpeft_jax.backbones.fedmf import FedMF
from fedpeft_jax.backbones.fedncf import FedNCF
from fedpeft_jax.backbones.fedpergnn import FedPerGNN
from fedpeft_jax.backbones.pfedrec import PFedRec

BACKBONES: dict[str, Callable[..., Backbone]] = {
    "fedmf": FedMF,
    "fedncf": FedNCF,
    "pfedrec": PFedRec,
    "fedpergnn": FedPerGNN,
}

__all__ = [
    "BACKBONES",
    "Backbone",
    "FedMF",
    "FedNCF",
    "FedPerGNN",
    "PFedRec",
    "fit_model",
    "item_variables",
    "merge_adapter",
    "merged_factors",
    "merged_table",
    "schedule_of",
    "statistics_of",
]
