"""The federated engine: one client, aggregation, cohorts, and rounds of them all."""

from fedpeft_jax.federated.aggregators import (
    AGGREGATORS,
    Aggregator,
    ClientUpdate,
    Statistics,
)
from fedpeft_jax.federated.client import LocalTraining, train_client
from fedpeft_jax.federated.cohorts import make_tiles, plan_cohorts
from fedpeft_jax.federated.round import RoundState, make_run_rounds
from fedpeft_jax.federated.state import (
    init_private,
    init_server,
    keep_surviving,
    make_state,
)

__all__ = [
    "AGGREGATORS",
    "Aggregator",
    "ClientUpdate",
    "LocalTraining",
    "RoundState",
    "Statistics",
    "init_private",
    "init_server",
    "keep_surviving",
    "make_run_rounds",
    "make_state",
    "make_tiles",
    "plan_cohorts",
    "train_client",
]
