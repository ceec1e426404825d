"""Initial variables, and what survives the switch of phases."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedpeft_jax.backbones import fit_model
from fedpeft_jax.core.roles import FROZEN, PRIVATE, ROWS, SHARED
from fedpeft_jax.embeddings import ItemFeatures
from fedpeft_jax.federated import (
    init_private,
    init_server,
    keep_surviving,
    make_state,
    with_server_optimizer,
)
from fedpeft_jax.federated.aggregators import mean
from tests.helpers import (
    Engine,
    assert_same,
    copy,
    make_model,
    make_training,
    random_split,
)
from tests.toys import ScoreFunction

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_ITEMS = 11


def table_of(variables, role=ROWS):
    return variables[role]["item_embedding"]["full"]


def test_the_server_holds_all_roles_but_private():
    server = init_server(make_model(NUM_ITEMS), jax.random.key(0))
    assert set(server) == {SHARED, ROWS, FROZEN}
    assert server[SHARED] == server[FROZEN] == {}
    assert table_of(server).shape == (NUM_ITEMS, 4)
    again = init_server(make_model(NUM_ITEMS), jax.random.key(0))
    other = init_server(make_model(NUM_ITEMS), jax.random.key(1))
    assert_same(server, again)
    assert (table_of(server) != table_of(other)).all()


@pytest.mark.parametrize("full", ["trained", "frozen"])
def test_fitted_values_replace_random_ones(full):
    model = make_model(NUM_ITEMS, full, "lora(rank=2)")
    latents = np.random.default_rng(0).normal(size=(NUM_ITEMS, 4)).astype(np.float32)
    fitted = fit_model(model, jax.random.key(0), ItemFeatures(table=latents)).values
    server = init_server(model, jax.random.key(1), fitted)
    role = ROWS if full == "trained" else FROZEN
    np.testing.assert_array_equal(table_of(server, role), latents)
    # What is not fitted keeps its random value.
    plain = init_server(model, jax.random.key(1))
    assert_same(
        server[ROWS]["item_embedding"]["compressed"],
        plain[ROWS]["item_embedding"]["compressed"],
    )


@pytest.mark.parametrize(
    "fitted",
    [
        {ROWS: {"item_embedding": {"full": np.zeros((NUM_ITEMS, 5))}}},
        {ROWS: {"item_embedding": {"ful": np.zeros((NUM_ITEMS, 4))}}},
        {FROZEN: {"item_embedding": {"full": np.zeros((NUM_ITEMS, 4))}}},
    ],
)
def test_fitted_values_that_meet_no_variable(fitted):
    with pytest.raises(ValueError, match=r"fitted .*full?"):
        init_server(make_model(NUM_ITEMS), jax.random.key(0), fitted)


def test_user_vectors_differ_and_do_not_depend_on_how_many_there_are():
    model = make_model(NUM_ITEMS)
    server = init_server(model, jax.random.key(0))
    few, many = (
        init_private(model, jax.random.key(1), n, server)["user"] for n in (3, 8)
    )
    assert many.shape == (8, 4)
    assert len(np.unique(np.asarray(many), axis=0)) == 8
    np.testing.assert_array_equal(many[:3], few)


def test_common_private_parameters_are_the_same_for_all():
    model = ScoreFunction(item_embedding=make_model(NUM_ITEMS).item_embedding)
    server = init_server(model, jax.random.key(0))
    own = init_private(model, jax.random.key(1), 3, server)
    for leaf in jax.tree.leaves(own):
        assert leaf.shape[0] == 3
        np.testing.assert_array_equal(leaf[1], leaf[0])
        np.testing.assert_array_equal(leaf[2], leaf[0])
    assert jnp.abs(own["hidden"]["kernel"]).min() > 0


def test_private_parameters_need_no_whole_tables():
    model = make_model(NUM_ITEMS, "frozen", "lora(rank=2)")
    server = init_server(model, jax.random.key(0))
    one_row = {
        SHARED: server[SHARED],
        **{
            role: jax.tree.map(lambda x: x[:1], server[role]) for role in (ROWS, FROZEN)
        },
    }
    whole = init_private(model, jax.random.key(1), 3, server)
    assert_same(init_private(model, jax.random.key(1), 3, one_row), whole)


def test_keep_surviving_matches_by_path_and_shape():
    new = {
        SHARED: {"a": {"w": jnp.zeros(2)}, "b": {"w": jnp.zeros(3)}},
        ROWS: {"t": jnp.zeros((4, 2))},
        FROZEN: {"u": jnp.zeros((4, 1))},
    }
    old = {
        SHARED: {"a": {"w": jnp.ones(2)}, "b": {"w": jnp.ones(9)}, "c": jnp.ones(1)},
        ROWS: {"u": jnp.ones((4, 1))},
        PRIVATE: {},
    }
    kept = keep_surviving(new, old)
    assert set(kept) == {SHARED, ROWS, FROZEN}
    assert kept[SHARED]["a"]["w"].tolist() == [1, 1]
    assert kept[SHARED]["b"]["w"].tolist() == [0, 0, 0]  # another shape
    assert set(kept[SHARED]) == {"a", "b"}  # what is gone is gone
    assert not kept[ROWS]["t"].any()
    assert kept[FROZEN]["u"].all()  # whatever its role was


def test_the_warm_ups_table_becomes_the_frozen_one():
    split = random_split([3, 2, 4, 1], NUM_ITEMS)
    aggregator = with_server_optimizer(mean(), optax.adam(0.05))
    warm_up = Engine(split, make_training(make_model(NUM_ITEMS)), 3, aggregator)
    state, frozen = warm_up.start()
    first, _ = warm_up.rounds(state, frozen, num_rounds=2)

    model = make_model(NUM_ITEMS, "frozen", "lora(rank=2)")
    peft = Engine(split, make_training(model), 3, aggregator)
    fresh = init_server(model, jax.random.key(9))
    server = keep_surviving(fresh, {SHARED: first.shared, ROWS: first.rows})
    trained = np.asarray(table_of({ROWS: first.rows}))
    np.testing.assert_array_equal(table_of(server, FROZEN), trained)
    assert np.abs(trained - table_of({ROWS: state.rows})).max() > 0.01
    # The adapter is the new phase's own, and nobody trains the table any more.
    assert_same(server[ROWS], fresh[ROWS])
    assert_same(server[SHARED], fresh[SHARED])

    second = make_state(
        copy(server),
        first.private,
        peft.algorithm,
        first.key,
        num_clients=4,
        round_=int(first.round),
    )
    assert int(second.round) == 2
    assert_same(second.private, first.private)
    # The server optimizer starts anew: no moments, no count of steps.
    for leaf in jax.tree.leaves(second.aggregator):
        assert not jnp.any(leaf)
    after, report = peft.rounds(second, server[FROZEN])
    assert report.finite
    assert int(after.round) == 3
    np.testing.assert_array_equal(table_of(server, FROZEN), trained)
    assert set(after.rows["item_embedding"]) == {"compressed"}
