"""Pipelines and release stages in a round: bits, memory, keys, sums and figures."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedpeft_jax.core.keys import ClientPurpose, client_key, purpose_key
from fedpeft_jax.core.roles import ROWS, SHARED
from fedpeft_jax.federated import (
    DOWNLOADS,
    UPLOADS,
    chain_releases,
    chain_uploads,
)
from tests import toys
from tests.helpers import (
    Engine,
    assert_close,
    assert_same,
    copy,
    largest_change,
    make_model,
    make_training,
    random_split,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_ITEMS = 23
SPLIT = random_split([3, 1, 5, 2, 4, 3], NUM_ITEMS)


def engine(**pipelines):
    model = make_model(NUM_ITEMS, "frozen", "lora(rank=2)")
    return Engine(SPLIT, make_training(model), cohort_size=3, pipelines=pipelines)


@pytest.fixture(scope="module")
def plain():
    built = engine()
    return built, built.start()


def test_identity_stages_change_no_bit(plain):
    built, (state, frozen) = plain
    other = engine(
        upload=chain_uploads(UPLOADS["identity"](), UPLOADS["identity"]()),
        download=DOWNLOADS["identity"](),
    )
    expected, report = built.rounds(state, frozen, 2)
    actual, same = other.rounds(other.start()[0], frozen, 2)
    assert_same(actual._replace(upload=()), expected._replace(upload=()))
    assert_same(same, report)
    assert report.figures == {}


def test_clipping_bounds_the_step_and_reports_its_share(plain):
    _, (state, frozen) = plain
    clipped = engine(upload=UPLOADS["clip_by_norm"](max_norm=0.01))
    after, report = clipped.rounds(state, frozen)
    change = jax.tree.map(
        jnp.subtract, (after.shared, after.rows), (state.shared, state.rows)
    )
    # A mean of updates of that length is no longer.
    assert 0.001 < float(optax.tree.norm(change)) <= 0.0101
    assert report.figures["clipped"].tolist() == [1.0, 0.0, 0.0]
    loose = engine(upload=UPLOADS["clip_by_norm"](max_norm=1e6))
    after, report = loose.rounds(state, frozen)
    assert_close(after, plain[0].rounds(state, frozen)[0])
    assert report.figures["clipped"][0] == 0


def test_a_client_keeps_its_memory_beside_its_private_parameters(plain):
    _, (_, frozen) = plain
    feedback = engine(upload=toys.error_feedback())
    state, _ = feedback.start()
    assert {len(x) for x in jax.tree.leaves(state.upload)} == {SPLIT.num_clients}
    after, report = feedback.rounds(state, frozen)
    cohort = np.sort(feedback.plan(0).client_ids[0])
    (memory,) = jax.tree.leaves(after.upload)
    moved = np.flatnonzero(np.any(np.asarray(memory) != 0, axis=(1, 2)))
    np.testing.assert_array_equal(moved, cohort)
    mean_error = np.abs(np.asarray(memory)[cohort]).sum() / len(cohort)
    np.testing.assert_allclose(report.figures["kept_back"][0], mean_error, rtol=1e-5)


def test_every_client_encodes_with_a_key_of_its_own(plain):
    built, (state, frozen) = plain
    seen = engine(upload=toys.uniform_noise(1.0))
    after, _ = seen.rounds(state, frozen)
    expected, _ = built.rounds(state, frozen)
    added = jax.tree.leaves(after.shared)[0] - jax.tree.leaves(expected.shared)[0]
    ids = seen.plan(0).client_ids[0]
    draws = [
        float(
            jax.random.uniform(
                purpose_key(client_key(state.key, 0, int(i)), ClientPurpose.UPLOAD)
            )
        )
        for i in ids
    ]
    weights = SPLIT.counts[ids]
    np.testing.assert_allclose(added, np.average(draws, weights=weights), rtol=1e-4)


def test_clients_train_from_what_they_receive_and_the_server_keeps_its_own(plain):
    """Without a step nothing moves, although the clients received rounded values."""
    _, (state, frozen) = plain
    model = make_model(NUM_ITEMS, "frozen", "lora(rank=2)")
    rounded = Engine(
        SPLIT,
        make_training(model, optimizer=optax.sgd(0.0)),
        cohort_size=3,
        pipelines={"download": DOWNLOADS["bfloat16"]()},
    )
    start = state._replace(
        shared=jax.tree.map(lambda x: x + 0.3, state.shared),
        rows=jax.tree.map(lambda x: x + 0.3, state.rows),
    )
    after, report = rounded.rounds(start, frozen)
    assert_same((after.shared, after.rows), (start.shared, start.rows))
    narrow = DOWNLOADS["bfloat16"]()
    tree = {SHARED: start.shared, ROWS: start.rows}
    received = narrow.decode(narrow.encode(tree, jax.random.key(0)))
    assert largest_change(received, tree) > 1e-4
    exact = dataclasses.replace(rounded, pipelines={})
    same, by_hand = exact.rounds(
        start._replace(shared=received[SHARED], rows=received[ROWS]), frozen
    )
    np.testing.assert_array_equal(report.losses, by_hand.losses)
    assert_same(same.private, after.private)


# Release


def test_a_release_stage_sees_the_sums_and_the_cohort(plain):
    built, (state, frozen) = plain
    noise = engine(release=toys.noisy_sums())
    start, _ = noise.start()
    after, report = noise.rounds(start, frozen, 2)
    assert int(after.release) == 2
    np.testing.assert_allclose(
        report.figures["noise_per_client"], [0.1 / 3, 0.1 / 3, 0.0], rtol=1e-6
    )
    plainly, _ = built.rounds(state, frozen, 1)
    once, _ = noise.rounds(noise.start()[0], frozen, 1)
    assert largest_change(once.shared, plainly.shared) > 1e-4
    assert_same(once.rows, plainly.rows)


def test_a_release_that_is_not_finite_is_latched(plain):
    _, (_, frozen) = plain
    broken = toys.noisy_sums(float("nan"))
    noise = engine(release=broken)
    start, _ = noise.start()
    after, report = noise.rounds(copy(start), frozen)
    assert not report.finite
    assert_same(after, start)


def test_memory_and_release_state_start_anew_with_a_phase():
    both = engine(upload=toys.error_feedback(), release=toys.noisy_sums())
    state, _ = both.start()
    assert int(state.release) == 0
    for leaf in jax.tree.leaves(state.upload):
        assert not leaf.any()


def test_release_stages_chain_in_order_with_keys_and_states_of_their_own(plain):
    """Two noises differ, both states count, and the figures stand side by side."""
    _, (_, frozen) = plain
    second = toys.noisy_sums()
    renamed = second._replace(
        apply=lambda *a: (*second.apply(*a)[:2], {"second": jnp.float32(1)})
    )
    both = engine(release=chain_releases(toys.noisy_sums(), renamed))
    start, _ = both.start()
    after, report = both.rounds(copy(start), frozen)
    assert [int(count) for count in after.release] == [1, 1]
    assert set(report.figures) == {"noise_per_client", "second"}
    alone, _ = engine(release=toys.noisy_sums()).rounds(
        engine(release=toys.noisy_sums()).start()[0], frozen
    )
    assert largest_change(after.shared, alone.shared) > 1e-4
