"""Canaries in rounds: what they send, who is in, and that nobody else notices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedpeft_jax.core.roles import gather_rows
from fedpeft_jax.federated.canaries import (
    Canaries,
    direction,
    is_in,
    leave_out,
    replace_update,
)
from fedpeft_jax.federated.sampler import ClientData
from fedpeft_jax.federated.updates import ClientUpdate
from tests.helpers import (
    Engine,
    assert_close,
    assert_same,
    make_model,
    make_training,
    random_split,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

COUNTS, ITEMS = (3, 3, 3, 3, 3, 3), 12
KEY = jax.random.key(7)


def engine(canaries, varying=False):
    """LoRA, whose `B` is shared and whose `A` has rows."""
    model = make_model(ITEMS, full=None, embedding="lora(rank=2)")
    return Engine(
        split=random_split(COUNTS, ITEMS),
        training=make_training(model, optimizer=optax.sgd(0.1), uniform_weights=True),
        cohort_size=len(COUNTS),
        plan_rounds=1,
        pipelines={"canaries": canaries, "varying_cohorts": varying},
    )


def one_round(rounds, cohort):
    """What one round of a cohort adds to the server's variables, and what clients keep.

    A place without a client has the weight 0, so that a mean over one client is its
    update.
    """
    state, frozen = rounds.start()
    arguments = list(rounds.arguments(state, frozen, 1))
    places = np.full_like(arguments[3], len(COUNTS))
    places[0, : len(cohort)] = cohort
    arguments[3] = jnp.asarray(places)
    after, _ = rounds.run(*arguments)
    step = jax.tree.map(
        lambda x, y: np.asarray(x) - np.asarray(y),
        (after.shared, after.rows),
        (state.shared, state.rows),
    )
    return step, after


def expected_step(canaries, rounds, client):
    """The direction of one canary as dense arrays, on its side and of its norm."""
    state, _ = rounds.start()
    items = jnp.asarray(rounds.split.train.row(client))
    like = state.shared, gather_rows(state.rows, items)
    own = jnp.ones(items.shape, bool)
    shared, rows = direction(canaries, state.key, client, like, items, own)
    dense = jax.tree.map(
        lambda table, x: jnp.zeros_like(table).at[items].set(x), state.rows, rows
    )
    side = 1 if is_in(state.key, client) else -1
    return jax.tree.map(lambda x: canaries.norm * side * x, (shared, dense))


@pytest.mark.slow
def test_canaries_send_their_directions_and_nobody_else_notices():
    canaries = Canaries(first=2, norm=3.0, opposed=True)
    without, with_canaries = engine(None), engine(canaries)
    state, _ = without.start()
    sides = {client: bool(is_in(state.key, client)) for client in range(2, 6)}
    assert set(sides.values()) == {True, False}
    for client in sides:
        step, _ = one_round(with_canaries, [client])
        expected = expected_step(canaries, without, client)
        assert_close(step, expected, rtol=1e-4, atol=1e-6)
    others = [0, 1]
    step, after = one_round(with_canaries, others)
    expected, state = one_round(without, others)
    assert_same((step, after), (expected, state))


@pytest.mark.slow
def test_canaries_that_are_out_may_be_absent():
    """The mean is over the canaries that are in."""
    canaries = Canaries(first=0, norm=3.0, opposed=False)
    rounds = engine(canaries, varying=True)
    state, _ = rounds.start()
    taking_part = [i for i in range(len(COUNTS)) if is_in(state.key, i)]
    assert 0 < len(taking_part) < len(COUNTS)
    step, after = one_round(rounds, range(len(COUNTS)))
    steps = [expected_step(canaries, rounds, client) for client in taking_part]
    expected = jax.tree.map(lambda *of_clients: sum(of_clients) / len(steps), *steps)
    assert_close(step, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("sparse", [True, False])
def test_directions_have_length_one_and_their_own_rows(sparse):
    canaries = Canaries(first=0, norm=1.0, opposed=True, sparse=sparse)
    like = {"w": jnp.zeros((40, 5))}, {"table": jnp.zeros((3, 4))}
    items, own = jnp.array([5, 2, 9]), jnp.array([True, False, True])

    def flat(client, items=items, own=own):
        unit = direction(canaries, KEY, client, like, items, own)
        return np.concatenate([x.ravel() for x in jax.tree.leaves(unit)])

    drawn = np.stack([flat(client) for client in range(12)])
    products = drawn @ drawn.T
    np.testing.assert_allclose(np.diag(products), 1, rtol=1e-5)
    # Independent directions of d numbers have products of about 1 / sqrt(d).
    assert np.abs(products - np.diag(np.diag(products))).max() < 0.35
    assert not drawn[:, 204:208].any()  # the row that is not the canary's own
    assert ((drawn != 0).sum(axis=1) == (1 if sparse else 208)).all()
    # The order in which rows are gathered changes their places alone.
    turned = flat(0, items[::-1], own[::-1])
    np.testing.assert_array_equal(turned[:200], drawn[0, :200])
    np.testing.assert_array_equal(
        turned[200:].reshape(3, 4), drawn[0, 200:].reshape(3, 4)[::-1]
    )


def test_a_fair_coin_decides_who_is_in():
    sides = np.asarray(jax.vmap(lambda i: is_in(KEY, i))(jnp.arange(2000)))
    assert abs(sides.mean() - 0.5) < 4 * 0.5 / np.sqrt(2000)


def test_only_canaries_that_are_out_leave_the_cohort():
    cohort = jnp.array([0, 3, 7, 8, 9, 10, 11, 20])
    sides = [bool(is_in(KEY, client)) for client in cohort]
    left = leave_out(Canaries(7, 1.0, opposed=False), KEY, cohort, nobody=20).tolist()
    expected = [
        client if client < 7 or side else 20
        for client, side in zip(cohort.tolist(), sides, strict=True)
    ]
    assert left == expected and 20 in left[:-1]
    everybody = leave_out(Canaries(7, 1.0, opposed=True), KEY, cohort, nobody=20)
    assert everybody.tolist() == cohort.tolist()


@pytest.mark.parametrize("alone", [True, False])
def test_other_clients_may_be_silent(alone):
    one = jnp.float32(1)
    update = ClientUpdate({"w": jnp.ones(4)}, {}, jnp.arange(2), one, one)
    data = ClientData(jnp.arange(2), jnp.arange(1), jnp.array([[1]]), jnp.ones(1, bool))
    canaries = Canaries(3, 2.0, opposed=True, alone=alone)
    sent = replace_update(canaries, KEY, jnp.int32(2), update, data)
    assert sent.shared["w"].tolist() == [0.0 if alone else 1.0] * 4
    sent = replace_update(canaries, KEY, jnp.int32(3), update, data)
    assert jnp.linalg.norm(sent.shared["w"]) == pytest.approx(2.0)
    assert replace_update(None, KEY, jnp.int32(3), update, data) is update
