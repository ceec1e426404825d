"""The federated engine: local training, pipelines, aggregation, and whole rounds."""

from fedpeft_jax.federated.aggregators import (
    AGGREGATORS,
    Aggregator,
    with_server_optimizer,
)
from fedpeft_jax.federated.algorithm import Algorithm, RoundReport, RoundState
from fedpeft_jax.federated.attackers import num_attackers
from fedpeft_jax.federated.client import LocalTraining, train_client
from fedpeft_jax.federated.cohorts import Cohorts, Tiles, make_tiles, plan_cohorts
from fedpeft_jax.federated.faults import (
    DROPPED,
    VANISHED,
    Faults,
    check_faults,
)
from fedpeft_jax.federated.losses import LOSSES
from fedpeft_jax.federated.optimizers import OPTIMIZERS, by_role
from fedpeft_jax.federated.pipelines import (
    DOWNLOADS,
    UPLOADS,
    Download,
    Upload,
    chain_downloads,
    chain_uploads,
)
from fedpeft_jax.federated.published_sampler import published_negatives
from fedpeft_jax.federated.release import Cohort, Release, chain_releases
from fedpeft_jax.federated.round import make_run_rounds
from fedpeft_jax.federated.sampler import (
    ClientData,
    ClientStore,
    Sampler,
    fresh_negatives,
)
from fedpeft_jax.federated.state import (
    init_private,
    init_server,
    keep_surviving,
    make_state,
)
from fedpeft_jax.federated.updates import ClientUpdate, Sum, Sums

__all__ = [
    "AGGREGATORS",
    "DOWNLOADS",
    "DROPPED",
    "LOSSES",
    "OPTIMIZERS",
    "UPLOADS",
    "VANISHED",
    "Aggregator",
    "Algorithm",
    "ClientData",
    "ClientStore",
    "ClientUpdate",
    "Cohort",
    "Cohorts",
    "Download",
    "Faults",
    "LocalTraining",
    "Release",
    "RoundReport",
    "RoundState",
    "Sampler",
    "Sum",
    "Sums",
    "Tiles",
    "Upload",
    "by_role",
    "chain_downloads",
    "chain_releases",
    "chain_uploads",
    "check_faults",
    "fresh_negatives",
    "init_private",
    "init_server",
    "keep_surviving",
    "make_run_rounds",
    "make_state",
    "make_tiles",
    "num_attackers",
    "plan_cohorts",
    "published_negatives",
    "train_client",
    "with_server_optimizer",
]
