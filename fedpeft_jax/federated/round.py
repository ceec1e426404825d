"""One federated round, and many of them in one dispatch.

Read `_round` from top to bottom: the server sends its parameters, every client of the
cohort trains on its own data, updates add up, the server takes one step. Clients are
vectorised here and nowhere else.
"""

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fedpeft_jax.core.roles import ROWS, SHARED, gather_rows, scatter_add_rows
from fedpeft_jax.core.typing import Array, Key, PyTree
from fedpeft_jax.federated.aggregators import Aggregator, ClientUpdate, Statistics
from fedpeft_jax.federated.client import LocalTraining, Purpose, train_client
from fedpeft_jax.federated.cohorts import Tiles
from fedpeft_jax.federated.sampler import ClientStore, make_client_data, read_history


class ServerPurpose(enum.IntEnum):
    """What the server's key of a round is folded with, apart from client ids."""

    AGGREGATE = 0x7FFFFFFF


_NO_ROUND = 0x7FFFFFFF  # in place of the round, for what is drawn once


class RoundState(NamedTuple):
    """Everything that a round changes, as one pytree.

    Attributes:
      shared: the shared parameters.
      rows: the trained per-item tables [I, ...].
      private: every client's private parameters [U, ...].
      aggregator: the aggregator's and the server optimizer's state.
      round: int32[], index of the next round.
      key: the run's key.
    """

    shared: PyTree
    rows: PyTree
    private: PyTree
    aggregator: Any
    round: Array
    key: Key


class RoundReport(NamedTuple):
    """What a chunk of rounds tells.

    Attributes:
      losses: float32[T], each round's training loss, the mean over the cohort's clients
        by weight; zero for rounds that did not run.
      finite: bool[], False if the last round that ran gave a non-finite update. That
        update was not applied: the state is the one before it.
    """

    losses: Array
    finite: Array


def make_run_rounds(
    training: LocalTraining, aggregator: Aggregator, tiles: Tiles
) -> jax.stages.Wrapped:
    """Compiles rounds into one function, to be called chunk by chunk.

    Args:
      training: how a client trains.
      aggregator: how the server combines updates.
      tiles: the shapes that cohorts train in.

    Returns:
      A jitted `(state, frozen, store, client_ids int32[T, C], num_tiles int32[T, b],
      num_rounds int32[]) -> (state, RoundReport)`, with the plan as `plan_cohorts`
      makes it. The state is donated. Only the first `num_rounds` of the T planned
      rounds run, so that one compilation serves chunks of every length.
    """

    def run(
        state: RoundState,
        frozen: PyTree,
        store: ClientStore,
        client_ids: Array,
        num_tiles: Array,
        num_rounds: Array,
    ) -> tuple[RoundState, RoundReport]:
        def go_on(carry: tuple[Array, RoundState, RoundReport]) -> Array:
            return (carry[0] < num_rounds) & carry[2].finite

        def body(
            carry: tuple[Array, RoundState, RoundReport],
        ) -> tuple[Array, RoundState, RoundReport]:
            t, state, report = carry
            state, loss, finite = _round(
                training, aggregator, tiles, state, frozen, store, client_ids[t],
                num_tiles[t],
            )  # fmt: skip
            losses = report.losses.at[t].set(loss)
            return t + 1, state, RoundReport(losses, finite)

        report = RoundReport(jnp.zeros(client_ids.shape[0]), jnp.bool_(True))
        num_rounds = jnp.minimum(num_rounds, client_ids.shape[0])
        start = (jnp.zeros_like(num_rounds), state, report)
        _, state, report = jax.lax.while_loop(go_on, body, start)
        return state, report

    return jax.jit(run, donate_argnums=0)


def _round(
    training: LocalTraining,
    aggregator: Aggregator,
    tiles: Tiles,
    state: RoundState,
    frozen: PyTree,
    store: ClientStore,
    client_ids: Array,
    num_tiles: Array,
) -> tuple[RoundState, Array, Array]:
    params = {SHARED: state.shared, ROWS: state.rows}
    round_key = jax.random.fold_in(state.key, state.round)
    draw_key = round_key
    if training.fixed_negatives:
        draw_key = jax.random.fold_in(state.key, _NO_ROUND)
    cohort_size = client_ids.shape[0]

    def train(client_id: Array, capacity: int) -> tuple[ClientUpdate, PyTree, Array]:
        """One client, from the server's parameters to its update."""
        key = jax.random.fold_in(round_key, client_id)
        draws = jax.random.fold_in(draw_key, client_id)
        data = make_client_data(
            jax.random.fold_in(draws, Purpose.NEGATIVES),
            read_history(
                store, client_id, capacity=capacity, num_items=training.num_items
            ),
            num_items=training.num_items,
            num_negatives=training.num_negatives,
            num_slots=training.num_slots,
        )
        sent = {SHARED: state.shared, ROWS: gather_rows(state.rows, data.item_ids)}
        own = gather_rows(state.private, client_id)
        rows = gather_rows(frozen, data.item_ids)
        return train_client(training, sent, own, rows, data, key)

    def train_tile(carry: PyTree, first: Array, size: int, capacity: int) -> PyTree:
        """The next `size` clients at once; places beyond the cohort stay empty."""
        statistics, private, losses = carry
        place = first + jnp.arange(size)
        nobody = store.counts.shape[0]
        ids = client_ids.at[place].get(mode="fill", fill_value=nobody)
        update, own, loss = jax.vmap(lambda i: train(i, capacity))(ids)
        dense, rows = jax.vmap(aggregator.map)(update)
        statistics = Statistics(
            jax.tree.map(_add_clients, statistics.dense, dense),
            scatter_add_rows(statistics.rows, update.item_ids, rows),
        )
        put = lambda all_, new: all_.at[place].set(new, mode="drop")  # noqa: E731
        return statistics, jax.tree.map(put, private, own), put(losses, loss)

    example = jax.eval_shape(lambda: train(client_ids[0], tiles.capacities[-1]))
    carry = (
        _zero_statistics(aggregator, example[0], training.num_items),
        jax.tree.map(lambda x: jnp.zeros((cohort_size, *x.shape), x.dtype), example[1]),
        jnp.zeros(cohort_size),
    )
    first = jnp.int32(0)
    buckets = zip(tiles.sizes, tiles.capacities, strict=True)
    for bucket, (size, capacity) in enumerate(buckets):
        carry = jax.lax.fori_loop(
            0,
            num_tiles[bucket],
            lambda tile, c, f=first, s=size, n=capacity: train_tile(
                c, f + tile * s, s, n
            ),
            carry,
        )
        first = first + num_tiles[bucket] * size
    statistics, private, losses = carry

    key = jax.random.fold_in(round_key, ServerPurpose.AGGREGATE)
    step, server = aggregator.apply(statistics, state.aggregator, params, key)
    weights = store.counts[client_ids].astype(jnp.float32)
    loss = jnp.sum(losses * weights) / jnp.maximum(jnp.sum(weights), 1.0)
    finite = _all_finite((step, private, loss))
    # A non-finite update is dropped where it is small, before it meets any table.
    params = jax.tree.map(lambda p, s: p + jnp.where(finite, s, 0), params, step)
    owners = jnp.where(finite, client_ids, store.counts.shape[0])
    new = RoundState(
        shared=params[SHARED],
        rows=params[ROWS],
        private=jax.tree.map(
            lambda all_, own: all_.at[owners].set(own, mode="drop"),
            state.private,
            private,
        ),
        aggregator=jax.tree.map(
            lambda n, o: jnp.where(finite, n, o), server, state.aggregator
        ),
        round=state.round + finite,
        key=state.key,
    )
    return new, loss, finite


def _add_clients(total: Array, values: Array) -> Array:
    """`total + sum(values, axis=0)`, as a product.

    A plain sum pulls the arithmetic of the local steps into its loop, which made rounds
    of codebooks 4 times as long.
    """
    ones = jnp.ones(values.shape[0], values.dtype)
    return total + jnp.tensordot(ones, values, 1, precision="highest")


def _zero_statistics(
    aggregator: Aggregator, update: ClientUpdate, num_items: int
) -> Statistics:
    dense, rows = jax.eval_shape(aggregator.map, update)
    zeros = lambda shape, like: jnp.zeros(shape, like.dtype)  # noqa: E731
    return Statistics(
        jax.tree.map(lambda x: zeros(x.shape, x), dense),
        jax.tree.map(lambda x: zeros((num_items, *x.shape[1:]), x), rows),
    )


def _all_finite(tree: PyTree) -> Array:
    flags = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(flags))
