"""What the server sees of chosen clients in one round, by running that round.

The observed round is the round of the run: the same local training, pipelines, noise
and release stage. Only its cohort differs, which holds the observed clients alone, and
a last release stage keeps a copy of the sums. With one client these are the update of
that client; with more they are the result of a secure sum.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.errors import DivergedError
from fedpeft_jax.core.roles import ROWS, SHARED
from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.experiment.clients import Clients
from fedpeft_jax.experiment.state import RunState
from fedpeft_jax.federated import (
    Algorithm,
    Faults,
    Release,
    Sums,
    chain_releases,
    make_run_rounds,
    make_tiles,
)
from fedpeft_jax.federated.aggregators import divisor
from fedpeft_jax.federated.release import identity_release
from fedpeft_jax.federated.updates import dense_update


class Observed(NamedTuple):
    """The released sums over the observed clients, divided by their weight.

    Attributes:
      shared: the weighted mean of the updates of the shared parameters.
      rows: that of the per-item tables, arrays [I, ...].
    """

    shared: PyTree
    rows: PyTree


Observe = Callable[[RunState, Sequence[int]], Observed]
"""`(state, client ids) -> Observed`; the state is left as it is."""

Touched = Callable[[RunState, int], np.ndarray]
"""`(state, client id) -> bool[I]`, the items of its pairs in the next round."""


def recorder(algorithm: Algorithm) -> Release:
    """Returns a release stage that keeps the sums of the last round in its state.

    Args:
      algorithm: the algorithm of the rounds, which decides the shapes of the sums.
    """

    def init(server: PyTree) -> Sums:
        num_items = algorithm.training.sampler.num_items

        def one() -> Sums:
            update = dense_update(server, num_items)
            return algorithm.aggregator.map(update, jax.random.key(0))

        shapes = jax.eval_shape(one)
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    return identity_release()._replace(
        init=init, apply=lambda sums, state, cohort, key: (sums, sums, {})
    )


def make_observe(algorithm: Algorithm, clients: Clients, num_observed: int) -> Observe:
    """Returns a function that runs one round with chosen clients and reads the sums.

    The observed clients answer without faults.

    Args:
      algorithm: everything that decides what happens in a round.
      clients: all clients of the run.
      num_observed: m, the number of clients in an observed round.
    """
    keep = recorder(algorithm)
    observing = algorithm._replace(
        release=chain_releases(algorithm.release, keep), faults=Faults()
    )
    # One bucket: few clients train, and every bucket takes long to compile.
    tiles = make_tiles(clients.counts, num_observed, max_buckets=1)
    num_tiles = jnp.full((1, 1), -(-num_observed // tiles.sizes[0]), jnp.int32)
    run_rounds = make_run_rounds(observing, tiles)
    empty = jax.jit(keep.init)  # traced once

    def observe(state: RunState, client_ids: Sequence[int]) -> Observed:
        ids = np.asarray(client_ids, np.int32)
        rounds = state.rounds
        server = {SHARED: rounds.shared, ROWS: rounds.rows}
        # The arrays of the run are copied, because the round is given its state's.
        copied: Any = jax.tree.map(jnp.copy, rounds._replace(release=()))
        release = (jax.tree.map(jnp.copy, rounds.release), empty(server))
        after, report = run_rounds(
            copied._replace(release=release),
            state.frozen,
            clients.store,
            jnp.asarray(ids[None]),
            num_tiles,
            jnp.int32(1),
        )
        if not bool(report.finite):
            raise DivergedError("the observed round gave a non-finite update")
        sums = after.release[1]
        weight = divisor(sums.shared.weight)
        shared, rows = jax.tree.map(
            lambda x: np.asarray(x / weight), (sums.shared.value, sums.rows.value)
        )
        return Observed(shared, rows)

    return observe


def make_touched(algorithm: Algorithm, clients: Clients) -> Touched:
    """Returns a function that lists the items a client trains on in the next round.

    Args:
      algorithm: everything that decides what happens in a round.
      clients: all clients of the run.
    """
    sampler = algorithm.training.sampler
    draw = jax.jit(sampler.draw, static_argnums=4)
    # One capacity for all clients: compiling takes longer than drawing.
    most = max(int(clients.counts.max(initial=1)), 1)

    def touched(state: RunState, client_id: int) -> np.ndarray:
        rounds = state.rounds
        client = jnp.int32(client_id)
        data = draw(rounds.key, rounds.round, client, clients.store, most)
        found = np.zeros(sampler.num_items + 1, bool)
        found[np.asarray(data.item_ids)] = True
        return found[:-1]

    return touched
