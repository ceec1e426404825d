"""Whole rounds: what moves, what never does, and what the result does not depend on."""

import collections
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend import core

from fedpeft_jax.core.keys import ServerPurpose, client_key
from fedpeft_jax.core.roles import FROZEN, PRIVATE, ROWS, SHARED
from fedpeft_jax.federated import (
    ClientUpdate,
    Tiles,
    init_private,
    init_server,
    make_tiles,
    train_client,
    with_server_optimizer,
)
from fedpeft_jax.federated.aggregators import mean
from fedpeft_jax.federated.losses import bpr
from tests.helpers import (
    Counted,
    Engine,
    assert_close,
    assert_same,
    client_data,
    largest_change,
    make_model,
    make_training,
    random_split,
)

NUM_ITEMS = 29
SPLIT = random_split([3, 9, 1, 4, 2, 3, 12, 2, 5, 1], NUM_ITEMS)
COHORT = 6


@pytest.fixture(scope="module")
def peft():
    """LoRA beside a frozen table, two buckets, a server optimizer with momentum."""
    model = make_model(NUM_ITEMS, "frozen", "lora(rank=2)")
    return Engine(
        SPLIT,
        make_training(model, Counted()),
        COHORT,
        with_server_optimizer(mean(), optax.sgd(1.0, momentum=0.5)),
        make_tiles(SPLIT.counts, COHORT, max_buckets=2, client_chunk=4),
    )


@pytest.fixture(scope="module")
def start(peft):
    return peft.start()


@pytest.fixture(scope="module")
def three_rounds(peft, start):
    """The states after 0, 1, 2 and 3 rounds, each dispatched alone."""
    states = [start[0]]
    for _ in range(3):
        state, report = peft.rounds(states[-1], start[1])
        assert report.finite
        states.append(state)
    return states


def test_peft_moves_the_adapter_and_the_users_only(start, three_rounds):
    state, frozen = start
    after = three_rounds[-1]
    for name in ("shared", "rows", "private", "aggregator"):
        assert largest_change(getattr(after, name), getattr(state, name)) > 1e-3
    assert int(after.round) == 3
    # The frozen table is no part of what a round returns, and its buffer is not reused.
    assert "full" not in after.rows["item_embedding"]
    np.testing.assert_array_equal(
        frozen["item_embedding"]["full"],
        init_server(make_model(NUM_ITEMS, "frozen", "lora(rank=2)"), jax.random.key(0))[
            FROZEN
        ]["item_embedding"]["full"],
    )


def test_chunks_of_any_length_give_the_same_bits(peft, start, three_rounds):
    at_once, report = peft.rounds(*start, num_rounds=3)
    assert_same(at_once, three_rounds[3])
    assert (report.losses > 0).all()
    two, report = peft.rounds(*start, num_rounds=2)
    assert_same(two, three_rounds[2])
    assert report.losses[2] == 0
    last, _ = peft.rounds(two, start[1], num_rounds=1)
    assert_same(last, three_rounds[3])


def test_one_compilation_serves_them_all(peft, start, three_rounds):
    traces = peft.training.loss.traces
    assert traces > 0
    for num_rounds in (1, 2, 3):
        peft.rounds(*start, num_rounds=num_rounds)
    assert peft.training.loss.traces == traces
    assert peft.run._cache_size() == 1


def test_who_is_not_in_the_cohort_keeps_its_private_state(peft, three_rounds):
    for round_ in range(3):
        cohort = peft.plan(round_).client_ids[0]
        before, after = (
            np.asarray(s.private["user"]) for s in three_rounds[round_ : round_ + 2]
        )
        same = np.all(before == after, axis=1)
        assert set(np.flatnonzero(~same)) == set(cohort)
    # And those in it differ, because their data do.
    assert len(np.unique(np.asarray(three_rounds[3].private["user"]), axis=0)) == 10


def test_the_loss_falls(start, peft):
    state, losses = start[0], []
    for _ in range(5):
        state, report = peft.rounds(state, start[1], num_rounds=3)
        losses.extend(report.losses.tolist())
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.05


@pytest.mark.parametrize(
    "tiles",
    [
        Tiles((12,), (1,)),  # one client after the other
        make_tiles(SPLIT.counts, COHORT, max_buckets=3, tile_rows=9),
    ],
)
def test_results_do_not_depend_on_the_tiles(tiles, peft, start, three_rounds):
    other = dataclasses.replace(peft, tiles=tiles)
    state, _ = other.rounds(*start, num_rounds=3)
    assert_close(state, three_rounds[3], rtol=1e-5, atol=1e-6)


def test_rounds_do_not_use_up_the_frozen_tables(peft, start):
    peft.rounds(*start)
    assert jnp.isfinite(start[1]["item_embedding"]["full"]).all()


def test_only_shared_parameters_and_rows_leave_a_client(peft):
    assert ClientUpdate._fields == ("shared", "rows", "item_ids", "weight", "loss")
    state, frozen = peft.start()
    data = client_data(SPLIT, state.key, 0, 3)
    update, private = jax.eval_shape(
        lambda: train_client(
            peft.training,
            {
                SHARED: state.shared,
                ROWS: jax.tree.map(lambda x: x[data.item_ids], state.rows),
            },
            jax.tree.map(lambda x: x[3], state.private),
            jax.tree.map(lambda x: x[data.item_ids], frozen),
            data,
            client_key(state.key, 0, 3),
        )
    )
    assert jax.tree.structure(update.shared) == jax.tree.structure(state.shared)
    assert jax.tree.structure(update.rows) == jax.tree.structure(state.rows)
    assert update.item_ids.shape == data.item_ids.shape
    assert update.weight.shape == update.loss.shape == ()
    assert jax.tree.map(jnp.shape, private) == {"user": (4,)}


def nan_above(threshold):
    """BPR that breaks down once some positive of a client scores high enough."""

    def loss(positives, negatives, mask):
        high = jnp.max(jnp.where(mask, positives, -jnp.inf)) > threshold
        return bpr(positives, negatives, mask) * jnp.where(high, jnp.nan, 1.0)

    return loss


def test_a_non_finite_update_is_latched():
    training = make_training(make_model(NUM_ITEMS), nan_above(0.45))
    aggregator = with_server_optimizer(mean(), optax.adam(0.1))
    engine = Engine(SPLIT, training, COHORT, aggregator, plan_rounds=8)
    start, frozen = engine.start()
    state, report = engine.rounds(start, frozen, num_rounds=8)
    failed = int(state.round)  # names the round that failed
    assert not report.finite
    assert 1 <= failed <= 6
    assert np.isfinite(report.losses[:failed]).all()
    assert np.isnan(report.losses[failed])
    assert not report.losses[failed + 1 :].any()
    # The state is the last good one, bit for bit, the aggregator's included.
    good, report = engine.rounds(start, frozen, num_rounds=failed)
    assert report.finite
    assert_same(state, good)
    # And it is usable: the same round fails again, from the same state.
    again, report = engine.rounds(state, frozen, num_rounds=3)
    assert not report.finite
    assert_same(again, good)


def all_shapes(jaxpr):
    """Every array shape in a jaxpr, those inside of loops and calls included."""
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    for var in (*jaxpr.invars, *jaxpr.constvars, *jaxpr.outvars):
        yield var.aval.shape
    for equation in jaxpr.eqns:
        for var in equation.outvars:
            yield var.aval.shape
        for value in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr),
        ):
            if isinstance(value, core.Jaxpr | core.ClosedJaxpr):
                yield from all_shapes(value)


def check_axes(shapes, **axes):
    """No array has an item axis and one of the others, nor their product, flat."""
    seen = collections.Counter()
    items = axes.pop("items")
    for shape in shapes:
        for name, size in axes.items():
            seen[name] += size in shape
            assert not (size in shape and items in shape), (name, shape)
            assert math.prod(shape) % (size * items) or 0 in shape, (name, shape)
        seen["items"] += items in shape
    return seen


def test_memory_is_never_clients_times_items():
    # All axes are primes of their own, so that a shape tells what it holds.
    num_clients, num_items, cohort = 37, 101, 17
    split = random_split([2, 7] * 18 + [7], num_items)
    for full in ("trained", "frozen"):
        model = make_model(num_items, full, "lora(rank=2)", features=2)
        training = make_training(model, num_negatives=2)
        engine = Engine(split, training, cohort, tiles=Tiles((7, 2), (5, 11)))
        arguments = engine.arguments(*engine.start(), 1)
        jaxpr = jax.make_jaxpr(engine.run)(*arguments)
        seen = check_axes(
            all_shapes(jaxpr),
            clients=num_clients, cohort=cohort, tile=5, other_tile=11, items=num_items,
        )  # fmt: skip
        assert min(seen.values()) > 0, "the walk missed an axis"


@pytest.mark.parametrize("backbone", ["fedmf"])
def test_initial_private_parameters_are_never_clients_times_items(backbone):
    model = make_model(101, "frozen", "lora(rank=2)", backbone, features=2)
    server = init_server(model, jax.random.key(0))
    jaxpr = jax.make_jaxpr(lambda key: init_private(model, key, 37, server))(
        jax.random.key(1)
    )
    seen = check_axes(all_shapes(jaxpr), clients=37, items=101)
    assert seen["clients"] > 0


def test_the_walk_finds_what_it_looks_for():
    def bad(x):
        return jax.lax.fori_loop(
            0, 3, lambda i, c: c + jnp.sum(jnp.ones((37, 101)) * c), x
        )

    with pytest.raises(AssertionError, match="clients"):
        check_axes(all_shapes(jax.make_jaxpr(jax.jit(bad))(1.0)), clients=37, items=101)


def test_the_servers_key_is_apart_from_every_client():
    purpose = ServerPurpose.AGGREGATE
    assert purpose > 2**30
    seen = []

    def apply(sums, state, server, key):
        step, state = mean().apply(sums, state, server, key)
        return step, jax.random.key_data(key)

    spy = mean()._replace(init=lambda server: jnp.zeros(2, jnp.uint32), apply=apply)
    engine = Engine(SPLIT, make_training(make_model(NUM_ITEMS)), 2, spy)
    state, frozen = engine.start()
    for round_ in range(2):
        key = jax.random.fold_in(jax.random.fold_in(state.key, round_), purpose)
        state, _ = engine.rounds(state, frozen)
        np.testing.assert_array_equal(state.aggregator, jax.random.key_data(key))
        seen.append(tuple(state.aggregator.tolist()))
    assert len(set(seen)) == 2
    assert state.private.keys() == {"user"}
    assert PRIVATE not in state.rows
