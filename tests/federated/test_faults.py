"""Faults in a round, against rounds of the clients that are left."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.keys import ClientPurpose, client_key, purpose_key
from fedpeft_jax.federated import Algorithm, Faults, with_server_optimizer
from fedpeft_jax.federated.aggregators import mean
from fedpeft_jax.federated.attackers import is_attacker, num_attackers
from fedpeft_jax.federated.faults import (
    check_faults,
    epochs_of,
)
from fedpeft_jax.federated.losses import bpr
from tests import toys
from tests.helpers import (
    Engine,
    assert_close,
    assert_same,
    largest_change,
    make_model,
    make_training,
    random_split,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_ITEMS = 29
COUNTS = [3, 9, 1, 4, 2, 3, 12, 2, 5, 7]
SPLIT = random_split(COUNTS, NUM_ITEMS)
COHORT = 6
STAGES = {"upload": toys.error_feedback(), "release": toys.noisy_sums(1e-3)}


def engine(faults, loss=bpr, stages=STAGES, **training):
    """LoRA with every kind of state; momentum moves even where the mean is zero."""
    model = make_model(NUM_ITEMS, "frozen", "lora(rank=2)")
    return Engine(
        SPLIT,
        make_training(model, loss, **training),
        COHORT,
        with_server_optimizer(mean(), optax.sgd(1.0, momentum=0.5)),
        pipelines={"faults": faults, **stages},
    )


@pytest.fixture(scope="module")
def plain():
    return engine(Faults())


@pytest.fixture(scope="module")
def vanishing():
    return engine(Faults(dropout_rate=0.5))


@pytest.fixture(scope="module")
def start(plain):
    """A state in which LoRA's B, the momentum and the clients' memory are not zero."""
    return plain.rounds(*plain.start())[0], plain.start()[1]


def round_of(engine, state, frozen, client_ids):
    """The state and the report after a round of some clients alone."""
    arguments = list(engine.arguments(state, frozen, 1))
    ids = np.full(arguments[3].shape, SPLIT.num_clients, np.int32)
    ids[0, : len(client_ids)] = client_ids
    arguments[3] = jnp.asarray(ids)
    return engine.run(*arguments)


def draws(state, client_ids, purpose):
    """The uniform draw of each client in the next round."""
    keys = [client_key(state.key, int(state.round), int(i)) for i in client_ids]
    return np.array([jax.random.uniform(purpose_key(k, purpose)) for k in keys])


def answering(state, client_ids):
    return draws(state, client_ids, ClientPurpose.VANISH) >= 0.5


def test_faults_that_never_occur_change_nothing(plain, start):
    rare = engine(Faults(1e-30, 1e-30, 1e-30, drop_nonfinite=True))
    after, report = rare.rounds(*start, num_rounds=2)
    expected, same = plain.rounds(*start, num_rounds=2)
    assert_close(after, expected)
    assert_close(report.losses, same.losses)
    found = dict(report.figures)
    assert found.pop("vanished").tolist() == found.pop("dropped").tolist() == [0, 0, 0]
    assert_close(found, same.figures)


def test_a_round_is_that_of_the_clients_that_answer(plain, vanishing, start):
    state, frozen = start
    cohort = plain.plan(int(state.round)).client_ids[0]
    here = answering(state, cohort)
    assert 0 < here.sum() < COHORT
    after, report = vanishing.rounds(state, frozen)
    expected, alone = round_of(plain, state, frozen, cohort[here])
    assert_close(after, expected)
    assert report.finite
    np.testing.assert_allclose(report.losses[0], alone.losses[0], rtol=1e-5)
    assert report.figures["vanished"].tolist() == [COHORT - here.sum(), 0, 0]
    # Whoever vanished keeps what it had, bit for bit.
    for name in ("private", "upload"):
        (old,), (new,) = (jax.tree.leaves(getattr(s, name)) for s in (state, after))
        moved = np.any(np.asarray(old != new).reshape(len(old), -1), axis=1)
        np.testing.assert_array_equal(np.flatnonzero(moved), np.sort(cohort[here]))
    # Stages report of those that answered.
    np.testing.assert_allclose(
        report.figures["noise_per_client"][0], 1e-3 / here.sum(), rtol=1e-6
    )
    (memory,) = jax.tree.leaves(after.upload)
    kept_back = np.abs(np.asarray(memory)[cohort[here]]).sum() / here.sum()
    np.testing.assert_allclose(report.figures["kept_back"][0], kept_back, rtol=1e-5)


def test_a_round_without_an_answer_changes_nothing(vanishing, start):
    state, frozen = start
    everyone = np.arange(SPLIT.num_clients)
    gone = everyone[~answering(state, everyone)][:COHORT]
    after, report = round_of(vanishing, state, frozen, gone)
    assert report.finite
    assert jnp.isnan(report.losses[0])
    assert report.figures["vanished"][0] == COHORT
    assert int(after.round) == int(state.round) + 1
    assert_same(after._replace(round=state.round), state)


@pytest.mark.parametrize("batch_size", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_straggler_of_two_epochs_runs_one(start, batch_size):
    settings = {"local_batch_size": batch_size}
    late = engine(Faults(straggler_rate=1.0), local_epochs=2, **settings)
    early = engine(Faults(), local_epochs=1, **settings)
    after, report = late.rounds(*start)
    expected, same = early.rounds(*start)
    assert_close(after, expected)
    np.testing.assert_allclose(report.losses[0], same.losses[0], rtol=1e-5)


def test_stragglers_run_any_smaller_number_of_epochs():
    keys = jax.random.split(jax.random.key(0), 2000)
    drawn = jax.vmap(lambda k: epochs_of(Faults(straggler_rate=0.6), k, 4))(keys)
    shares = np.bincount(drawn, minlength=5) / len(drawn)
    # 4 standard errors of a share of 0.2 in 2000 draws are 0.036.
    np.testing.assert_allclose(shares, [0, 0.2, 0.2, 0.2, 0.4], atol=0.045)


def test_attackers_are_chosen_once_by_seed_and_id():
    faults, ids = Faults(sign_flip_rate=0.3), jnp.arange(1000)
    first, again, other = (
        np.asarray(jax.vmap(lambda i, k=k: is_attacker(faults, k, i))(ids))
        for k in map(jax.random.key, (5, 5, 6))
    )
    assert num_attackers(faults, jax.random.key(5), 1000) == first.sum()
    np.testing.assert_array_equal(first, again)
    assert 240 < first.sum() < 360  # 4 standard errors are 58
    assert 0.4 < np.mean(first[other]) + 0.2 < 0.6  # two seeds are independent


def test_an_attacker_subtracts_a_multiple_of_its_update(plain, start):
    faults = Faults(sign_flip_rate=0.5, sign_flip_scale=3.0)
    lying, (state, frozen) = engine(faults), start
    # Without momentum from before, the step is the mean.
    state = state._replace(aggregator=plain.start()[0].aggregator)
    cohort = plain.plan(int(state.round)).client_ids[0]
    flips = np.array([bool(is_attacker(faults, state.key, int(i))) for i in cohort])
    assert 0 < flips.sum() < COHORT
    honest, _ = plain.rounds(state, frozen)
    after, report = lying.rounds(state, frozen)
    theirs, _ = round_of(plain, state, frozen, cohort[flips])
    share = SPLIT.counts[cohort[flips]].sum() / SPLIT.counts[cohort].sum()
    # The release stage's noise is added to a sum, and is not theirs to reverse.
    assert_close(
        after.rows,
        jax.tree.map(
            lambda x, y, z: x - 4.0 * share * (y - z),
            honest.rows,
            theirs.rows,
            state.rows,
        ),
    )
    assert largest_change(after.shared, honest.shared) > 1e-2
    # What an attacker keeps for itself is not reversed, and it counts as an answer.
    assert_close((after.private, after.upload), (honest.private, honest.upload))
    assert_close(report.figures, plain.rounds(state, frozen)[1].figures)


def nan_for(count, loss=bpr):
    """BPR that is not finite for a client with that number of positives."""

    def broken(positives, negatives, mask):
        factor = jnp.where(jnp.sum(mask) == count, jnp.nan, 1.0)
        return loss(positives, negatives, mask) * factor

    return broken


@pytest.fixture(scope="module")
def broken_client(plain):
    """The id of the longest client in the cohort of round 1, and that cohort."""
    cohort = plain.plan(1).client_ids[0]
    return cohort[0], cohort


def test_an_update_that_is_not_finite_stops_the_run_by_default(start, broken_client):
    broken, _ = broken_client
    stopping = engine(Faults(), loss=nan_for(COUNTS[broken]))
    after, report = stopping.rounds(*start)
    assert not report.finite
    assert_same(after, start[0])


def test_an_update_that_is_not_finite_is_dropped(plain, start, broken_client):
    (broken, cohort), (state, frozen) = broken_client, start
    dropping = engine(Faults(drop_nonfinite=True), nan_for(COUNTS[broken]))
    after, report = dropping.rounds(state, frozen)
    expected, alone = round_of(plain, state, frozen, cohort[1:])
    assert report.finite
    assert_close(after, expected)
    np.testing.assert_allclose(report.losses[0], alone.losses[0], rtol=1e-5)
    assert report.figures["dropped"].tolist() == [1, 0, 0]
    own = lambda s: jax.tree.map(lambda x: x[broken], (s.private, s.upload))  # noqa: E731
    assert_same(own(after), own(state))
    # Without anybody else the round changes nothing.
    after, report = round_of(dropping, state, frozen, cohort[:1])
    assert report.finite
    assert report.figures["dropped"][0] == 1
    assert_same(after._replace(round=state.round), state)


def test_a_figure_of_a_stage_may_not_have_the_name_of_a_fault():
    def encode(update, state, key):
        return update, state, {"vanished": jnp.float32(1)}

    upload = toys.error_feedback()._replace(init=lambda received: (), encode=encode)
    upload = upload._replace(decode=lambda payload: payload)
    faulty = engine(Faults(dropout_rate=0.5), stages={"upload": upload})
    with pytest.raises(InputError, match="'vanished'"):
        faulty.rounds(*faulty.start())


def test_faults_that_cannot_occur_are_errors():
    with pytest.raises(InputError, match="`local_epochs` to at least 2"):
        check_faults(Faults(straggler_rate=0.5), local_epochs=1)
    with pytest.raises(InputError, match="set `sign_flip_rate`"):
        check_faults(Faults(sign_flip_scale=2.0), local_epochs=2)
    check_faults(Faults(straggler_rate=0.5), local_epochs=2)
    assert Algorithm._field_defaults["faults"] == Faults()
