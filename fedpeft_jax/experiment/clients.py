"""All clients of a run: what they hold, and the plan of the cohorts of its rounds."""

from typing import NamedTuple

import numpy as np

from fedpeft_jax.core.sampling import CohortSampling
from fedpeft_jax.data import Split
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.once import Once, make_anew
from fedpeft_jax.experiment.privacy_plan import client_chunk
from fedpeft_jax.federated import (
    ClientStore,
    Cohorts,
    Sampler,
    Tiles,
    make_tiles,
    plan_cohorts,
)

# Rounds per dispatch: enough to hide its cost, few enough to show progress often.
_CHUNK = 25


class Clients(NamedTuple):
    """All clients of a run, and how their cohorts are drawn.

    Attributes:
      store: what the clients hold.
      counts: int64[U], each client's number of training items.
      sampling: how cohorts are drawn.
      places: C, the size of the largest cohort of the run.
      tiles: the shapes in which cohorts train.
      seed: seed of the run, from which cohorts are drawn.
      chunk: the most rounds per call of `advance`.
    """

    store: ClientStore
    counts: np.ndarray
    sampling: CohortSampling
    places: int
    tiles: Tiles
    seed: int
    chunk: int


def make_clients(
    config: RunConfig, split: Split, sampler: Sampler, once: Once = make_anew
) -> Clients:
    """Puts the clients' data on the device, and chooses the shapes of a round.

    Args:
      config: the configuration.
      split: the clients' training and held-out items.
      sampler: the sampler of the run's phases, which decides what a client stores.
      once: makes what several runs have in common.
    """
    counts = np.asarray(split.counts)
    sampling = config.sampling(split.num_clients)
    # A plan is as long as a dispatch, and may go beyond the last round.
    places = sampling.most(config.run.seed, config.run.rounds + _CHUNK)
    tiles = make_tiles(
        counts,
        max(places, 1),
        max_buckets=config.run.max_buckets,
        tile_rows=config.run.tile_rows,
        client_chunk=client_chunk(config, split.num_items),
    )
    chunk = min(config.evaluation.eval_every, _CHUNK)
    unseen = config.training.train_negatives, config.training.negative_slots
    key = "what the clients store", id(split), *unseen
    store = once(key, lambda: sampler.make_store(split))
    return Clients(
        store=store,
        counts=counts,
        sampling=sampling,
        places=places,
        tiles=tiles,
        seed=config.run.seed,
        chunk=chunk,
    )


def plan_rounds(clients: Clients, first_round: int) -> Cohorts:
    """Returns the cohorts of the next `clients.chunk` rounds.

    Args:
      clients: all clients of the run.
      first_round: index of the first round, from 0.
    """
    return plan_cohorts(
        clients.tiles,
        clients.counts,
        sampling=clients.sampling,
        width=clients.places,
        seed=clients.seed,
        first_round=first_round,
        num_rounds=clients.chunk,
    )
