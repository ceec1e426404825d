"""Aggregators that bound what a client can do, against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.federated import (
    UPLOADS,
    ClientUpdate,
    Faults,
    Sum,
    Tiles,
    make_tiles,
)
from fedpeft_jax.federated.aggregators import (
    check_collected,
    mean,
    median,
    norm_bounded_mean,
    trimmed_mean,
)
from tests.helpers import (
    Engine,
    assert_close,
    make_model,
    make_training,
    random_split,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

SIZE = 9
NUMBERS = st.floats(-1e3, 1e3, width=32)
VALUES = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=SIZE, max_size=SIZE)
WEIGHTS = st.lists(st.sampled_from([0.0, 1.0, 7.0]), min_size=SIZE, max_size=SIZE)
# Compiled once each; hypothesis calls them often.
COMBINE = {
    ("median", 0.5): jax.jit(median().combine),
    ("trimmed_mean", 0.1): jax.jit(trimmed_mean().combine),
    ("trimmed_mean", 0.29): jax.jit(trimmed_mean(trim=0.29).combine),
    ("trimmed_mean", 0.0): jax.jit(trimmed_mean(trim=0.0).combine),
}


def combined(which, values, weights):
    """The statistic of each coordinate, as `apply` divides it out."""
    values, weights = np.asarray(values, np.float32), np.asarray(weights, np.float32)
    total = COMBINE[which](Sum({"w": jnp.asarray(values)}, jnp.asarray(weights)))
    assert float(total.weight) == weights.sum()
    return np.asarray(total.value["w"]) / max(float(total.weight), 1e-9)


@pytest.mark.parametrize("which", COMBINE)
@given(values=VALUES, weights=WEIGHTS)
@settings(max_examples=60, deadline=None)
def test_statistics_of_the_clients_that_answered(which, values, weights):
    here = np.asarray(values, np.float32)[np.asarray(weights) > 0].astype(float)
    found = combined(which, values, weights)
    if not len(here):
        assert not found.any()
    elif which[0] == "median":
        np.testing.assert_allclose(found, np.median(here, axis=0), rtol=1e-4, atol=1e-3)
    else:
        expected = scipy.stats.trim_mean(here, which[1], axis=0)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("which", COMBINE)
@given(values=VALUES, weights=WEIGHTS, order=st.permutations(range(SIZE)))
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_clients_does_not_matter(which, values, weights, order):
    moved = combined(which, np.array(values)[order], np.array(weights)[order])
    found = combined(which, values, weights)
    np.testing.assert_allclose(moved, found, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("which", [("median", 0.5), ("trimmed_mean", 0.29)])
@given(values=VALUES, outlier=st.sampled_from([-1e30, -1e6, 1e6, 1e30]))
@settings(max_examples=30, deadline=None)
def test_outliers_cannot_leave_the_range_of_the_others(which, values, outlier):
    """Two of nine clients, however large their weight."""
    others = np.asarray(values, np.float32)[2:]
    spoiled = np.concatenate([np.full((2, 2), outlier, np.float32), others])
    found = combined(which, spoiled, [1e3, 1e3] + 7 * [1.0])
    slack = 1e-3 + 1e-5 * np.abs(others).max()
    assert np.all(found >= others.min(axis=0) - slack)
    assert np.all(found <= others.max(axis=0) + slack)


@pytest.mark.parametrize("which", COMBINE)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_no_extreme(which, value):
    values = np.arange(2.0 * SIZE).reshape(SIZE, 2)
    values[3, 0] = value
    found = combined(which, values, np.ones(SIZE))
    assert np.isnan(found[0]) and np.isfinite(found[1])
    # In an empty place nobody reads it.
    weights = np.where(np.arange(SIZE) == 3, 0.0, 1.0)
    assert np.isfinite(combined(which, values, weights)).all()


def update_of(shared, rows, weight=2.0):
    return ClientUpdate(
        {"w": jnp.asarray(shared, jnp.float32)},
        {"t": jnp.asarray(rows, jnp.float32)},
        jnp.arange(len(rows)),
        jnp.float32(weight),
        jnp.float32(0.5),
    )


@given(
    values=st.lists(NUMBERS, min_size=6, max_size=6),
    max_norm=st.sampled_from([0.1, 1.0, 50.0]),
)
@settings(max_examples=60, deadline=None)
def test_no_update_is_longer_than_the_bound(values, max_norm):
    update = update_of(values[:2], np.reshape(values[2:], (2, 2)))
    sums = norm_bounded_mean(max_norm=max_norm).map(update, jax.random.key(0))
    found = np.concatenate(
        [np.ravel(sums.shared.value["w"]), np.ravel(sums.rows.value["t"])]
    )
    norm = np.linalg.norm(np.asarray(values, np.float32).astype(float))
    factor = min(1.0, max_norm / norm) if norm > 1e-15 else 1.0
    np.testing.assert_allclose(
        found, 2.0 * factor * np.asarray(values), rtol=1e-4, atol=1e-6 * max_norm
    )


def test_a_norm_that_overflows_is_bounded():
    update = update_of([1e30, 1.0], [[3e38, 0.0]])
    sums = norm_bounded_mean(max_norm=1.0).map(update, jax.random.key(0))
    assert np.isfinite(sums.shared.value["w"]).all()
    assert np.isfinite(sums.rows.value["t"]).all()


NUM_ITEMS = 29
SPLIT = random_split([3, 9, 1, 4, 2, 3, 12, 2, 5, 7], NUM_ITEMS)
COHORT = 7
FAULTS = Faults(dropout_rate=0.3)
TILES = make_tiles(SPLIT.counts, COHORT, max_buckets=2, client_chunk=4)


ROW_NORM = 0.004  # between the norms of the rows of different clients


def trim_quarters(values, axis):
    return scipy.stats.trim_mean(values, 0.25, axis)


def engine(aggregator, tiles=TILES, faults=FAULTS):
    model = make_model(NUM_ITEMS, "frozen", "lora(rank=2)")
    pipelines = {"faults": faults, "upload": UPLOADS["bfloat16"]()}
    training = make_training(model, optimizer=optax.sgd(2.0))
    return Engine(SPLIT, training, COHORT, aggregator, tiles, pipelines=pipelines)


@pytest.fixture(scope="module")
def updates():
    """A state, and what each client that answers adds to it, with its weight."""
    alone = engine(mean(), Tiles((12,), (1,)))
    state, frozen = alone.start()
    state, _ = alone.rounds(state, frozen)
    found = []
    for client in alone.plan(1).client_ids[0]:
        arguments = list(alone.arguments(state, frozen, 1))
        ids = np.full(arguments[3].shape, SPLIT.num_clients, np.int32)
        ids[0, 0] = client
        arguments[3] = jnp.asarray(ids)
        after, report = alone.run(*arguments)
        if not report.figures["vanished"][0]:
            found.append((change(after, state), SPLIT.counts[client]))
    assert 3 < len(found) < COHORT
    return state, frozen, found


def change(after, before):
    """The step of a round: shared parameters and rows, in float64."""
    return tuple(
        np.asarray(jax.tree.leaves(getattr(after, name))[0], float)
        - np.asarray(jax.tree.leaves(getattr(before, name))[0], float)
        for name in ("shared", "rows")
    )


@pytest.mark.parametrize(
    "tiles", [TILES, pytest.param(Tiles((12,), (1,)), marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("aggregator", "statistic", "bound"),
    [
        (median(max_row_norm=ROW_NORM), np.median, ROW_NORM),
        (trimmed_mean(trim=0.25), trim_quarters, np.inf),
    ],
)
def test_order_statistics_of_a_round(aggregator, statistic, bound, tiles, updates):
    state, frozen, each = updates
    after, report = engine(aggregator, tiles).rounds(state, frozen)
    assert report.finite
    shared, rows = change(after, state)
    expected = statistic(np.stack([u[0] for u, _ in each]), axis=0)
    np.testing.assert_allclose(shared, expected, rtol=1e-3, atol=1e-6)
    norms = [np.linalg.norm(u[1]) for u, _ in each]
    assert bound == np.inf or min(norms) < bound < max(norms)
    bounded = [
        min(1.0, bound / n) * u[1] for n, (u, _) in zip(norms, each, strict=True)
    ]
    by_weight = np.average(bounded, axis=0, weights=[w for _, w in each])
    np.testing.assert_allclose(rows, by_weight, rtol=1e-3, atol=1e-6)


def test_a_norm_bounded_mean_of_a_round(updates):
    state, frozen, each = updates
    norms = [np.sqrt(np.sum(u[0] ** 2) + np.sum(u[1] ** 2)) for u, _ in each]
    bound = float(np.median(norms))
    after, _ = engine(norm_bounded_mean(max_norm=bound)).rounds(state, frozen)
    weights = np.array([w for _, w in each]) / sum(w for _, w in each)
    factors = weights * np.minimum(1.0, bound / np.array(norms))
    for place, found in enumerate(change(after, state)):
        expected = sum(f * u[place] for f, (u, _) in zip(factors, each, strict=True))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_an_attack_reaches_the_mean_and_not_the_median():
    faults = Faults(sign_flip_rate=0.25, sign_flip_scale=1e6)
    norms = []
    for aggregator in (mean(), median(max_row_norm=0.05)):
        attacked = engine(aggregator, faults=faults)
        state, frozen = attacked.start()
        after, report = attacked.rounds(state, frozen)
        assert report.finite
        norms.append([np.linalg.norm(x) for x in change(after, state)])
    assert norms[0][0] > 1e3
    assert norms[1][0] < 1 and norms[1][1] < 0.051


def test_a_round_that_would_hold_too_much_is_an_error():
    shared = Sum(jax.ShapeDtypeStruct((2**20,), jnp.float32), jnp.float32(0))
    check_collected(median(), shared, cohort_size=200)
    check_collected(mean(), shared, cohort_size=10**6)
    with pytest.raises(InputError, match="lower `cohort_size`"):
        check_collected(median(), shared, cohort_size=300)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (norm_bounded_mean, {"max_norm": 0.0}, "max_norm must be above 0"),
        (norm_bounded_mean, {"max_norm": float("nan")}, "max_norm must be above 0"),
        (trimmed_mean, {"trim": 0.5}, "trim must be in"),
        (trimmed_mean, {"trim": -0.1}, "trim must be in"),
        (median, {"max_row_norm": -1.0}, "max_row_norm must be above 0"),
    ],
)
def test_arguments_that_cannot_be(make, arguments, message):
    with pytest.raises(InputError, match=message):
        make(**arguments)


def test_a_round_with_an_order_statistic_uses_the_weights_for_rows_alone(updates):
    """The same sum of weights divides both."""
    state, frozen, each = updates
    after, _ = engine(trimmed_mean(trim=0.0)).rounds(state, frozen)
    plain, _ = engine(mean()).rounds(state, frozen)
    assert_close(after.rows, plain.rows)
    expected = np.mean([u[0] for u, _ in each], axis=0)
    np.testing.assert_allclose(change(after, state)[0], expected, rtol=1e-3, atol=1e-6)
