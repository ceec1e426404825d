"""PFedRec: private score functions, and the local step that alternates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedpeft_jax.backbones import PFedRec, schedule_of
from fedpeft_jax.core.roles import PRIVATE, ROWS, SHARED, TRAINED, gather_rows
from fedpeft_jax.core.typing import History
from fedpeft_jax.embeddings import ItemEmbedding
from fedpeft_jax.federated.client import train_client
from fedpeft_jax.federated.losses import bpr
from fedpeft_jax.federated.state import init_private, init_server
from tests.helpers import (
    Engine,
    assert_same,
    client_data,
    make_model,
    make_training,
    random_split,
)

HISTORY = History(jnp.array([0]), jnp.array([True]))


@functools.cache
def pfedrec_rounds(alternate):
    split = random_split([5, 3, 4, 6], num_items=15)
    model = make_model(
        15, "frozen", "lora(rank=2)", f"pfedrec(hidden=(6,), alternate={alternate})"
    )
    engine = Engine(split, make_training(model, num_negatives=2), cohort_size=2)
    state, frozen = engine.start()
    after, report = engine.rounds(state, frozen)
    assert report.finite
    return engine, state, after


@pytest.mark.parametrize("alternate", [False, True])
def test_score_functions_start_alike_and_end_apart(alternate):
    engine, before, after = pfedrec_rounds(alternate)
    clients = range(4)
    own = [jax.tree.map(lambda x, c=c: x[c], before.private) for c in clients]
    for other in own[1:]:
        assert_same(other, own[0])
    first, second = np.sort(engine.plan(0).client_ids[0])
    assert_same(
        jax.tree.map(lambda x: np.delete(x, [first, second], axis=0), after.private),
        jax.tree.map(lambda x: np.delete(x, [first, second], axis=0), before.private),
    )
    apart = jax.tree.map(
        lambda x: float(np.abs(x[first] - x[second]).max()), after.private
    )
    assert min(jax.tree.leaves(apart)) > 0.01
    # And so they rank the same items differently.
    scores = [
        engine.training.model.apply(
            {
                "params": after.shared, "rows": after.rows,
                "frozen": engine.start()[1],
                "private": jax.tree.map(lambda x, c=c: x[c], after.private),
            },
            HISTORY, None, deterministic=True, method="score",
        )
        for c in (first, second)
    ]  # fmt: skip
    assert np.abs(scores[0] - scores[1]).max() > 1e-3


def test_nothing_private_is_in_the_server_or_an_update():
    _, before, after = pfedrec_rounds(False)
    shapes = {
        path[-1].key
        for path, _ in jax.tree.leaves_with_path((after.shared, after.rows))
    }
    assert shapes == {"A", "B"}
    assert set(before.private) == {"layers_0", "output"}


def test_alternating_moves_the_score_function_first():
    """With one epoch the network's step is the same, and the items' comes after it."""
    assert schedule_of(PFedRec(item_embedding=ItemEmbedding(3, 2))) == (TRAINED,)
    split = random_split([5], num_items=15)
    found = {}
    for alternate in (False, True):
        model = make_model(
            15, "trained", None,
            f"pfedrec(hidden=(6,), dropout=0.0, alternate={alternate})",
        )  # fmt: skip
        training = make_training(model, optimizer=optax.sgd(1.0), local_epochs=1)
        server = init_server(model, jax.random.key(0))
        private = init_private(model, jax.random.key(1), 1, server)
        own = gather_rows(private, jnp.int32(0))
        data = client_data(split, jax.random.key(2), 0, 0)
        rows = gather_rows(server[ROWS], data.item_ids)
        received = {SHARED: server[SHARED], ROWS: rows}
        update, after = train_client(
            training, received, own, {}, data, jax.random.key(3)
        )
        found[alternate] = received, own, after, update, data, model
    received, own, after, update, data, model = found[True]
    assert_same(after, found[False][2])

    def loss(rows):
        scores = model.apply(
            {ROWS: rows, PRIVATE: after}, data.history, None,
            deterministic=True, method="score",
        )  # fmt: skip
        return bpr(scores[data.positives], scores[data.negatives], data.mask)

    expected = jax.tree.map(jnp.negative, jax.grad(loss)(received[ROWS]))
    for value, by_hand in zip(
        jax.tree.leaves(update.rows), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(value, by_hand, rtol=1e-4, atol=1e-7)
    other = jax.tree.leaves(found[False][3].rows)[0]
    assert np.abs(other - jax.tree.leaves(update.rows)[0]).max() > 1e-4
