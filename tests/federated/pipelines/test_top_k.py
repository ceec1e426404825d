"""top_k: what is chosen, what it costs, and what a client keeps for later."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.roles import ROWS, SHARED, num_bytes
from fedpeft_jax.federated import UPLOADS, ClientUpdate, chain_uploads
from tests.helpers import Engine, assert_same, make_model, make_training, random_split

pytestmark = pytest.mark.usefixtures("quick_compilation")

I, K = 9, 4  # noqa: E741
IDS = jnp.array([7, 1, 4, I])  # the last row is padding
top_k = UPLOADS["top_k"]


def received():
    return {SHARED: {"w": jnp.zeros((3, 2))}, ROWS: {"t": jnp.zeros((I, 2))}}


def make_update(seed=0, ids=IDS):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(len(ids), 2)) * (np.asarray(ids) < I)[:, None]
    return ClientUpdate(
        {"w": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)},
        {"t": jnp.asarray(rows, jnp.float32)},
        jnp.asarray(ids),
        jnp.float32(3),
        jnp.float32(0.5),
    )


def vector(update):
    """Shared parameters, then rows."""
    return np.concatenate([np.ravel(update.shared["w"]), np.ravel(update.rows["t"])])


@pytest.mark.parametrize("k", [1, 5, 13, 14, 1000])
def test_the_largest_numbers_are_sent_and_the_others_kept(k):
    update, stage = make_update(), top_k(k=k)
    payload, kept, _ = stage.encode(update, stage.init(received()), None)
    decoded = stage.decode(payload)
    assert jax.tree.structure(decoded) == jax.tree.structure(update)
    before, after = vector(update), vector(decoded)
    order = np.argsort(-np.abs(before))[: min(k, 14)]
    expected = np.zeros(14, np.float32)
    expected[order] = before[order]
    np.testing.assert_array_equal(after, expected)
    assert num_bytes(payload[:2]) == 8 * min(k, 14)
    # Sent and kept are the update, to the bit.
    rest = np.asarray(kept[ROWS]["t"])
    np.testing.assert_array_equal(decoded.shared["w"] + kept[SHARED]["w"],
                                  update.shared["w"])  # fmt: skip
    np.testing.assert_array_equal(decoded.rows["t"][:3] + rest[[7, 1, 4]],
                                  update.rows["t"][:3])  # fmt: skip
    assert not rest[[0, 2, 3, 5, 6, 8]].any()  # padding wrote nothing


def test_what_was_kept_is_added_when_the_client_touches_the_row_again():
    stage = top_k(k=3)
    state, total = stage.init(received()), np.zeros((I, 2))
    sent, shared = np.zeros((I, 2)), np.zeros((3, 2))
    for seed, ids in enumerate([IDS, jnp.array([1, 2, I, I]), jnp.array([4, 1, 0, 8])]):
        update = make_update(seed, ids)
        old = state
        payload, state, _ = stage.encode(update, state, None)
        decoded = stage.decode(payload)
        real = np.asarray(ids)[np.asarray(ids) < I]
        np.add.at(total, real, update.rows["t"][: len(real)])
        np.add.at(sent, real, decoded.rows["t"][: len(real)])
        shared += np.asarray(update.shared["w"]) - np.asarray(decoded.shared["w"])
        np.testing.assert_allclose(
            vector(decoded) + vector(
                update._replace(
                    shared=state[SHARED], rows=_padded(state[ROWS]["t"], ids)
                )
            ),
            vector(update) + vector(
                update._replace(shared=old[SHARED], rows=_padded(old[ROWS]["t"], ids))
            ),
            rtol=1e-6,
        )  # fmt: skip
        others = np.setdiff1d(np.arange(I), real)
        assert_same(state[ROWS]["t"][others], old[ROWS]["t"][others])
    # Over all participations nothing is lost and nothing is sent twice.
    np.testing.assert_allclose(sent + state[ROWS]["t"], total, atol=1e-6)
    np.testing.assert_allclose(state[SHARED]["w"], shared, atol=1e-6)


def _padded(table, ids):
    table = np.concatenate([np.asarray(table), np.zeros((1, 2))])
    return {"t": table[np.asarray(ids)]}


def test_without_feedback_a_client_keeps_nothing():
    stage = top_k(k=2, error_feedback=False)
    assert stage.init(received()) == ()
    payload, state, figures = stage.encode(make_update(), (), None)
    assert state == () and figures == {}
    assert np.count_nonzero(vector(stage.decode(payload))) == 2


@pytest.mark.parametrize("feedback", [True, False])
def test_what_is_not_finite_is_not_hidden(feedback):
    update = make_update()
    update = update._replace(shared={"w": update.shared["w"].at[0, 0].set(jnp.nan)})
    stage = top_k(k=2, error_feedback=feedback)
    payload, state, _ = stage.encode(update, stage.init(received()), None)
    decoded = vector(stage.decode(payload))
    assert not np.all(np.isfinite(decoded))


def test_an_update_without_parameters_and_an_empty_place():
    stage = top_k()
    nothing = ClientUpdate({}, {}, IDS, jnp.float32(0), jnp.float32(0))
    empty = {SHARED: {}, ROWS: {}}
    payload, state, _ = stage.encode(nothing, stage.init(empty), None)
    assert num_bytes(payload[:2]) == 0 and stage.decode(payload).shared == {}
    zero = jax.tree.map(jnp.zeros_like, make_update())._replace(item_ids=IDS * 0 + I)
    payload, state, _ = stage.encode(zero, stage.init(received()), None)
    for leaf in jax.tree.leaves((stage.decode(payload)[:2], state)):
        assert not np.any(leaf)


def test_the_chosen_numbers_may_be_sent_in_eight_bits():
    chain = chain_uploads(top_k(k=5, error_feedback=False), UPLOADS["int8"]())
    update = make_update()
    payload, _, _ = chain.encode(update, chain.init(received()), jax.random.key(0))
    assert num_bytes(payload[:2]) == 5 * (1 + 4) + 4
    scale = np.abs(vector(update)).max() / 127
    decoded = vector(chain.decode(payload))
    sent = decoded != 0
    assert sent.sum() == 5
    assert np.all(np.abs(decoded - vector(update))[sent] <= scale * 1.0001)


def test_k_must_be_a_positive_integer():
    for bad in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="top_k: k must be an integer of at least"):
            top_k(k=bad)


def test_in_a_round_only_the_cohort_keeps_something():
    split = random_split([3, 1, 5, 2, 4, 3], 23)
    model = make_model(23, "frozen", "lora(rank=2)")
    engine = Engine(
        split, make_training(model), cohort_size=3, pipelines={"upload": top_k(k=4)}
    )
    state, frozen = engine.start()
    after, report = engine.rounds(state, frozen)
    assert report.finite
    cohort = np.sort(engine.plan(0).client_ids[0])
    moved = [
        np.flatnonzero(np.any(np.asarray(x).reshape(6, -1) != 0, axis=1))
        for x in jax.tree.leaves(after.upload)
    ]
    np.testing.assert_array_equal(np.unique(np.concatenate(moved)), cohort)
