"""Aggregators against means computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedpeft_jax.core.roles import scatter_add_rows
from fedpeft_jax.federated import ClientUpdate, Sums
from fedpeft_jax.federated.aggregators import (
    AGGREGATORS,
    mean,
    row_mean,
    sparse_row_mean,
    with_server_optimizer,
)
from tests.helpers import (
    Engine,
    assert_close,
    assert_same,
    client_data,
    make_model,
    make_training,
    random_split,
)
from tests.toys import second_moment

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_ITEMS = 4
# What a factory needs; a new one without a default is one line here.
ARGUMENTS = {"norm_bounded_mean": {"max_norm": 3.0}}
PARAMS = {"params": {"w": jnp.zeros(2)}, "rows": {"t": jnp.zeros((NUM_ITEMS, 1))}}

# Three unequal clients with weights 1, 2 and 5; item 4 is padding.
UPDATES = (
    ClientUpdate(
        {"w": jnp.array([8.0, 0.0])},
        {"t": jnp.array([[8.0], [4.0]])},
        jnp.array([0, 1]),
        jnp.float32(1),
        jnp.float32(0.1),
    ),
    ClientUpdate(
        {"w": jnp.array([0.0, 4.0])},
        {"t": jnp.array([[2.0], [99.0]])},
        jnp.array([1, 4]),
        jnp.float32(2),
        jnp.float32(0.2),
    ),
    ClientUpdate(
        {"w": jnp.array([1.6, -1.6])},
        {"t": jnp.array([[-1.6], [0.8]])},
        jnp.array([2, 0]),
        jnp.float32(5),
        jnp.float32(0.5),
    ),
)


def make(name):
    return AGGREGATORS[name](**ARGUMENTS.get(name, {}))


def add_up(aggregator, updates):
    """What the engine does: adds or collects sums, and adds rows by item."""
    mapped = [aggregator.map(u, jax.random.key(0)) for u in updates]
    shared, loss = (
        jax.tree.map(lambda *x: sum(x), *parts)
        for parts in ([m.shared for m in mapped], [m.loss for m in mapped])
    )
    if aggregator.combine:
        each = [m.shared for m in mapped]
        shared = aggregator.combine(jax.tree.map(lambda *x: jnp.stack(x), *each))
    rows = jax.tree.map(lambda x: jnp.zeros((NUM_ITEMS, *x.shape[1:])), mapped[0].rows)
    for update, m in zip(updates, mapped, strict=True):
        rows = scatter_add_rows(rows, update.item_ids, m.rows)
    return Sums(shared, rows, loss)


def aggregate(aggregator, updates=UPDATES):
    step, _ = aggregator.apply(
        add_up(aggregator, updates),
        aggregator.init(PARAMS),
        PARAMS,
        jax.random.key(0),
    )
    return step


def test_weighted_mean_by_hand():
    step = aggregate(mean())
    # (1*8 + 2*0 + 5*1.6) / 8, (1*0 + 2*4 - 5*1.6) / 8
    np.testing.assert_allclose(step["params"]["w"], [2.0, 0.0], atol=1e-7)
    # (1*8 + 5*0.8) / 8, (1*4 + 2*2) / 8, -5*1.6 / 8, nobody
    np.testing.assert_allclose(step["rows"]["t"][:, 0], [1.5, 1.0, -1.0, 0.0])


def test_row_mean_by_hand():
    step = aggregate(row_mean())
    np.testing.assert_allclose(step["params"]["w"], [2.0, 0.0], atol=1e-7)
    # The same sums over 1 + 5, 1 + 2 and 5.
    expected = [2.0, 8.0 / 3.0, -1.6, 0.0]
    np.testing.assert_allclose(step["rows"]["t"][:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize(("density", "same"), [(0.437, mean), (0.438, row_mean)])
def test_sparse_row_mean_by_hand(density, same):
    """The rows are touched by 6 / 8, 3 / 8, 5 / 8 and 0 of the weight: 0.4375."""
    assert_same(aggregate(sparse_row_mean(density)), aggregate(same()))


@pytest.mark.parametrize("density", [0.0, 1.01, float("nan")])
def test_a_density_out_of_bounds_is_refused(density):
    with pytest.raises(ValueError, match="density must be above 0 and at most 1"):
        sparse_row_mean(density)


def test_the_loss_is_the_weighted_mean_of_what_clients_report():
    loss = add_up(mean(), UPDATES).loss
    # (1*0.1 + 2*0.2 + 5*0.5) / 8
    np.testing.assert_allclose(loss.value / loss.weight, 3.0 / 8, rtol=1e-6)


@pytest.mark.parametrize("name", AGGREGATORS)
@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_the_size_of_the_weights_does_not_matter(name, scale):
    """A total weight below 1 is divided by like any other."""
    scaled = [u._replace(weight=scale * u.weight) for u in UPDATES]
    aggregator = make(name)
    assert_close(aggregate(aggregator, scaled), aggregate(aggregator))


@pytest.mark.parametrize("name", AGGREGATORS)
def test_an_empty_place_adds_nothing(name):
    empty = jax.tree.map(lambda x: x * 0, UPDATES[0])._replace(
        item_ids=jnp.array([4, 4])
    )
    aggregator = make(name)
    assert_close(aggregate(aggregator, (*UPDATES, empty)), aggregate(aggregator))
    nobody = aggregate(aggregator, (empty,))
    assert_same(nobody, jax.tree.map(jnp.zeros_like, nobody))


@pytest.mark.parametrize("name", AGGREGATORS)
def test_sums_add_up_over_any_grouping(name):
    aggregator = make(name)
    rng = np.random.default_rng(0)
    updates = [
        ClientUpdate(
            {"w": jnp.asarray(rng.normal(size=2), jnp.float32)},
            {"t": jnp.asarray(rng.normal(size=(2, 1)), jnp.float32)},
            jnp.asarray(rng.choice(NUM_ITEMS, 2, replace=False)),
            jnp.float32(rng.integers(1, 9)),
            jnp.float32(rng.uniform()),
        )
        for _ in range(6)
    ]
    aggregator = aggregator._replace(combine=None)  # what it collects is no sum
    whole = add_up(aggregator, updates)
    for cut in (1, 3):
        parts = add_up(aggregator, updates[:cut]), add_up(aggregator, updates[cut:])
        assert_close(jax.tree.map(jnp.add, *parts), whole)


def test_the_server_optimizer_sees_minus_the_aggregate():
    seen = []

    def update(gradient, state, params):
        seen.append(gradient)
        return jax.tree.map(lambda g: 10.0 * g, gradient), state + 1

    spy = optax.GradientTransformation(lambda params: 0, update)
    aggregator = with_server_optimizer(mean(), spy)
    step, state = aggregator.apply(
        add_up(aggregator, UPDATES),
        aggregator.init(PARAMS),
        PARAMS,
        jax.random.key(0),
    )
    plain = aggregate(mean())
    assert_same(seen[0], jax.tree.map(jnp.negative, plain))
    assert_same(step, jax.tree.map(lambda x: 10.0 * -x, plain))
    assert state == ((), 1)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_sgd_of_one_is_the_aggregate_itself(name):
    aggregator = make(name)
    wrapped = with_server_optimizer(aggregator, optax.sgd(1.0))
    assert_same(aggregate(wrapped), aggregate(aggregator))


@pytest.fixture(scope="module")
def problem():
    split = random_split([2, 3, 1, 2], num_items=31)
    return split, make_training(make_model(31))


def test_rows_that_nobody_touched_do_not_move(problem):
    split, training = problem
    aggregator = with_server_optimizer(row_mean(), optax.sgd(2.0))
    engine = Engine(split, training, cohort_size=2, aggregator=aggregator)
    state, frozen = engine.start()
    after, _ = engine.rounds(state, frozen)
    touched = {
        item
        for client in engine.plan(0).client_ids[0]
        for item in client_data(split, state.key, 0, client).item_ids.tolist()
    }
    before, after = (s.rows["item_embedding"]["full"] for s in (state, after))
    moved = np.flatnonzero(np.any(before != after, axis=1))
    assert set(moved) == touched - {31}


def test_an_aggregator_of_two_sums_runs_in_the_engine(problem):
    # The mean over what the clients sent, divided by one plus their root mean square.
    split, training = problem
    plain = Engine(split, training, cohort_size=3)
    toy = Engine(split, training, cohort_size=3, aggregator=second_moment())
    state, frozen = plain.start()
    mean_step = (
        plain.rounds(state, frozen)[0].rows["item_embedding"]["full"]
        - (state.rows["item_embedding"]["full"])
    )
    after, report = toy.rounds(toy.start()[0], frozen)
    step = after.rows["item_embedding"]["full"] - (state.rows["item_embedding"]["full"])
    assert report.finite
    # One client alone: its update is the mean, and its square the second moment.
    ids = np.asarray(plain.plan(0).client_ids[0])
    data = [set(client_data(split, state.key, 0, c).item_ids.tolist()) for c in ids]
    weights = split.counts[ids]
    checked = 0
    for item in range(31):
        owners = [k for k, items in enumerate(data) if item in items]
        if len(owners) == 1:
            share = weights[owners[0]] / weights.sum()
            first = np.asarray(mean_step[item])
            second = (first / share) ** 2 * share
            np.testing.assert_allclose(
                step[item], first / (1 + np.sqrt(second)), rtol=1e-4, atol=1e-7
            )
            checked += 1
    assert checked > 2
