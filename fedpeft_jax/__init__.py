"""Federated recommendation with parameter-efficient item embeddings, in JAX."""

from fedpeft_jax.backbones import (
    BACKBONES,
    Backbone,
    FedMF,
    FedNCF,
    FedPerGNN,
    PFedRec,
)
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import Dataset, DataSettings, from_frame, load_dataset
from fedpeft_jax.embeddings import (
    EMBEDDINGS,
    RQ,
    CompressedEmbedding,
    Fitted,
    Hash,
    ItemEmbedding,
    ItemFeatures,
    LoRA,
)
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.run_folder import RunFolder
from fedpeft_jax.experiment.training import DivergedError, Run
from fedpeft_jax.federated import (
    AGGREGATORS,
    Aggregator,
    ClientUpdate,
    LocalTraining,
    RoundState,
    Statistics,
    make_run_rounds,
    make_tiles,
    plan_cohorts,
)

__version__ = "0.1.0"

__all__ = [
    "AGGREGATORS",
    "BACKBONES",
    "EMBEDDINGS",
    "RQ",
    "Aggregator",
    "Backbone",
    "ClientUpdate",
    "CompressedEmbedding",
    "DataSettings",
    "Dataset",
    "DivergedError",
    "FedMF",
    "FedNCF",
    "FedPerGNN",
    "Fitted",
    "Hash",
    "InputError",
    "ItemEmbedding",
    "ItemFeatures",
    "LoRA",
    "LocalTraining",
    "PFedRec",
    "RoundState",
    "Run",
    "RunConfig",
    "RunFolder",
    "Statistics",
    "from_frame",
    "load_dataset",
    "make_run_rounds",
    "make_tiles",
    "plan_cohorts",
]
