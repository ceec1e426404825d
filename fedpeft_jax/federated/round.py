"""One federated round, and many rounds in one dispatch.

Read `one_round` from top to bottom: the server sends its variables, every client of the
cohort trains on its own data and sends its update, the updates add up, the sums are
released, and the server takes one step. Clients are vectorised here and nowhere else.
"""

import jax
import jax.numpy as jnp

from fedpeft_jax.core.keys import ClientPurpose, ServerPurpose, client_key, purpose_key
from fedpeft_jax.core.roles import ROWS, SHARED, gather_rows, scatter_add_rows
from fedpeft_jax.core.typing import Array, PyTree
from fedpeft_jax.federated.aggregators import check_collected, mean_loss
from fedpeft_jax.federated.algorithm import (
    Algorithm,
    RoundReport,
    RoundState,
    figure_names,
)
from fedpeft_jax.federated.attackers import attack
from fedpeft_jax.federated.canaries import leave_out, replace_update
from fedpeft_jax.federated.client import train_client
from fedpeft_jax.federated.cohorts import Tiles
from fedpeft_jax.federated.faults import (
    all_finite,
    count,
    drop_nonfinite,
    epochs_of,
    who_answers,
)
from fedpeft_jax.federated.release import Cohort, merge_figures
from fedpeft_jax.federated.sampler import ClientStore
from fedpeft_jax.federated.updates import Sums


def make_run_rounds(algorithm: Algorithm, tiles: Tiles) -> jax.stages.Wrapped:
    """Returns a function that runs a chunk of rounds in one dispatch.

    Args:
      algorithm: everything that decides what happens in a round.
      tiles: the shapes in which cohorts train.

    Returns:
      A jitted function `(state, frozen, store, client_ids int32[T, C], num_tiles
      int32[T, b], num_rounds int32[]) -> (state, RoundReport)`. `plan_cohorts` makes
      `client_ids` and `num_tiles`. The state is donated. Only the first `num_rounds` of
      the T planned rounds run, so that one compilation serves chunks of every length up
      to T. A round with a non-finite update is the last one that runs.
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
            state, loss, figures, finite = one_round(
                algorithm, tiles, state, frozen, store, client_ids[t], num_tiles[t]
            )
            put = lambda all_, new: all_.at[t].set(new)  # noqa: E731
            losses = put(report.losses, loss)
            figures = jax.tree.map(put, report.figures, figures)
            return t + 1, state, RoundReport(losses, figures, finite)

        length = client_ids.shape[0]
        names = figure_names(algorithm, state)
        report = RoundReport(
            losses=jnp.zeros(length),
            figures={name: jnp.zeros(length) for name in names},
            finite=jnp.bool_(True),
        )
        num_rounds = jnp.minimum(num_rounds, length)
        start = (jnp.zeros_like(num_rounds), state, report)
        _, state, report = jax.lax.while_loop(go_on, body, start)
        return state, report

    return jax.jit(run, donate_argnums=0)


def one_round(
    algorithm: Algorithm,
    tiles: Tiles,
    state: RoundState,
    frozen: PyTree,
    store: ClientStore,
    client_ids: Array,
    num_tiles: Array,
) -> tuple[RoundState, Array, dict[str, Array], Array]:
    """Returns the state after a round, its loss, its figures, whether it is finite."""
    (training, aggregator, upload, download, release, faults, varying, canaries) = (
        algorithm
    )
    sampler, cohort_size = training.sampler, client_ids.shape[0]
    round_key = jax.random.fold_in(state.key, state.round)
    nobody = store.train.num_rows
    drawn = leave_out(canaries, state.key, client_ids, nobody)
    client_ids = who_answers(faults, state.key, state.round, drawn, nobody)

    # The server sends its variables, the same to every client.
    server = {SHARED: state.shared, ROWS: state.rows}
    download_key = purpose_key(round_key, ServerPurpose.DOWNLOAD)
    received = download.decode(download.encode(server, download_key))

    def participate(client_id: Array, capacity: int) -> tuple[PyTree, PyTree, PyTree]:
        """Returns what one client sends, what it keeps, and what it reports."""
        key = client_key(state.key, state.round, client_id)
        data = sampler.draw(state.key, state.round, client_id, store, capacity)
        update, private = train_client(
            training,
            {**received, ROWS: gather_rows(received[ROWS], data.item_ids)},
            gather_rows(state.private, client_id),
            gather_rows(frozen, data.item_ids),
            data,
            key,
            epochs_of(faults, key, training.local_epochs),
        )
        update = replace_update(canaries, state.key, client_id, update, data)
        upload_state = gather_rows(state.upload, client_id)
        upload_key = purpose_key(key, ClientPurpose.UPLOAD)
        payload, upload_state, figures = upload.encode(update, upload_state, upload_key)
        return payload, (private, upload_state), figures

    def contribute(
        client_id: Array, payload: PyTree, kept: PyTree
    ) -> tuple[Sums, Array | None, PyTree]:
        """Returns what one client adds to the sums, if it was finite, and figures."""
        key = client_key(state.key, state.round, client_id)
        update = attack(faults, state.key, client_id, upload.decode(payload))
        finite = None
        if faults.drop_nonfinite:
            update, finite = drop_nonfinite(update, kept)
        update, figures = release.bound(update, state.release)
        sums = aggregator.map(update, purpose_key(key, ClientPurpose.AGGREGATE))
        return sums, finite, dict(figures)

    def train_tile(carry: PyTree, first: Array, size: int, capacity: int) -> PyTree:
        """Trains the next `size` clients at once; places after the cohort are empty."""
        sums, of_clients = carry
        place = first + jnp.arange(size)
        ids = client_ids.at[place].get(mode="fill", fill_value=nobody)
        payload, kept, figures = jax.vmap(lambda i: participate(i, capacity))(ids)
        each, finite, bounded = jax.vmap(contribute)(ids, payload, kept)
        put = lambda all_, new: all_.at[place].set(new, mode="drop")  # noqa: E731
        sums = Sums(
            shared=jax.tree.map(
                put if aggregator.combine else _add_clients, sums.shared, each.shared
            ),
            rows=scatter_add_rows(sums.rows, payload.item_ids, each.rows),
            loss=jax.tree.map(put, sums.loss, each.loss),
        )
        found = (kept, figures, finite, bounded)
        return sums, jax.tree.map(put, of_clients, found)

    # The clients of the cohort train, tile by tile, and their updates add up.
    payload, kept, figures = jax.eval_shape(
        lambda: participate(client_ids[0], tiles.capacities[-1])
    )
    sums, finite, bounded = jax.eval_shape(contribute, client_ids[0], payload, kept)
    check_collected(aggregator, sums.shared, cohort_size)
    per_client = lambda x: jnp.zeros((cohort_size, *x.shape), x.dtype)  # noqa: E731
    carry = (
        Sums(
            shared=jax.tree.map(
                per_client if aggregator.combine else _zeros, sums.shared
            ),
            rows=jax.tree.map(
                lambda x: jnp.zeros((sampler.num_items, *x.shape[1:]), x.dtype),
                sums.rows,
            ),
            # One entry per client, so that the loss does not depend on the tiles.
            loss=jax.tree.map(per_client, sums.loss),
        ),
        jax.tree.map(per_client, (kept, figures, finite, bounded)),
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
    sums, (kept, figures, finite, bounded) = carry
    sums = sums._replace(loss=jax.tree.map(jnp.sum, sums.loss))
    if aggregator.combine:
        sums = sums._replace(shared=aggregator.combine(sums.shared))
    names, figures = list(bounded), merge_figures(figures, bounded)
    counted, kept, figures = count(
        faults, drawn, client_ids, nobody, finite, kept, figures, varying=varying
    )
    bounded = {name: figures[name] * counted.size for name in names}

    # The sums are released, and the server takes one step.
    sums, release_state, released = release.apply(
        sums,
        state.release,
        Cohort(counted.size, training.uniform_weights, bounded),
        purpose_key(round_key, ServerPurpose.RELEASE),
    )
    step, aggregator_state = aggregator.apply(
        sums,
        state.aggregator,
        server,
        purpose_key(round_key, ServerPurpose.AGGREGATE),
    )
    loss = mean_loss(sums.loss)

    # A non-finite update is dropped here, where it is small, and not in the tables.
    applied = finite = all_finite((step, kept, loss))
    if release.private:
        loss = jnp.full_like(loss, jnp.nan)
    elif faults.figures or varying:  # a round without an answer changes nothing
        empty = counted.size == 0
        applied, finite = finite & ~empty, finite | empty
        loss = jnp.where(empty, jnp.nan, loss)
    owners = jnp.where(applied, counted.ids, nobody)
    server = jax.tree.map(lambda p, s: p + jnp.where(applied, s, 0), server, step)
    private, upload_state = jax.tree.map(
        lambda all_, own: all_.at[owners].set(own, mode="drop"),
        (state.private, state.upload),
        kept,
    )
    aggregator_state, release_state = jax.tree.map(
        lambda new, old: jnp.where(applied, new, old),
        (aggregator_state, release_state),
        (state.aggregator, state.release),
    )
    new = RoundState(
        shared=server[SHARED],
        rows=server[ROWS],
        private=private,
        upload=upload_state,
        aggregator=aggregator_state,
        release=release_state,
        round=state.round + finite,
        key=state.key,
    )
    return new, loss, merge_figures(figures, released), finite


def _zeros(x: jax.ShapeDtypeStruct) -> Array:
    return jnp.zeros(x.shape, x.dtype)


def _add_clients(total: Array, values: Array) -> Array:
    """Returns `total + sum(values, axis=0)`, computed as a product.

    With a plain sum, XLA fuses the arithmetic of the local steps into the loop of the
    sum, which made rounds with codebooks 4 times as long.
    """
    ones = jnp.ones(values.shape[0], values.dtype)
    return total + jnp.tensordot(ones, values, 1, precision="highest")
