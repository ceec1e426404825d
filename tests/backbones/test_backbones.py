"""Recommenders against scores worked out by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedpeft_jax.backbones import FedMF, FedNCF, FedPerGNN, PFedRec
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.roles import PRIVATE, ROWS, SHARED, TRAINED, gather_rows
from fedpeft_jax.core.typing import History
from fedpeft_jax.embeddings import Hash, ItemEmbedding, ItemFeatures, LoRA
from fedpeft_jax.federated.client import train_client
from fedpeft_jax.federated.losses import bce, bpr
from fedpeft_jax.federated.state import init_private, init_server
from tests.helpers import (
    Engine,
    assert_same,
    client_data,
    make_model,
    make_training,
    random_split,
)
from tests.toys import Codes

HISTORY = History(jnp.array([0]), jnp.array([True]))
IDS = jnp.array([2, 0])


def apply(model, variables, ids):
    return model.apply(variables, HISTORY, ids, deterministic=True, method="score")


def test_fedmf_is_a_dot_product_with_a_private_vector():
    model = FedMF(item_embedding=ItemEmbedding(3, 2))
    table = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, -6.0]])
    variables = {
        "rows": {"item_embedding": {"full": table}},
        "private": {"user": jnp.array([10.0, 1.0])},
    }
    assert apply(model, variables, IDS).tolist() == [44.0, 12.0]
    assert apply(model, variables, None).tolist() == [12.0, 34.0, 44.0]
    assert apply(model, variables, jnp.int32(1)).tolist() == 34.0


def test_fedmf_draws_users_from_their_own_keys_and_trains_all_at_once():
    assert FedMF.private_init == "per_client"
    model = FedMF(item_embedding=ItemEmbedding(3, 200), init_mean=2.0, init_scale=0.5)
    assert model.local_schedule == (TRAINED,)
    variables = model.init(
        jax.random.key(0), HISTORY, IDS, deterministic=True, method="score"
    )
    user = variables["private"]["user"]
    assert float(user.std()) == pytest.approx(0.5, rel=0.2)
    assert float(user.mean()) == pytest.approx(2.0, rel=0.1)


def test_fit_is_the_embeddings_fit_under_its_name():
    latents = np.arange(6.0).reshape(3, 2)
    values = FedMF(item_embedding=ItemEmbedding(3, 2, "frozen", Codes)).fit(
        jax.random.key(0), ItemFeatures(None, latents, latents)
    )
    values, figures = values
    assert figures == {"codes_used": 3}
    assert set(values) == {"frozen", "params"}
    for tree in values.values():
        assert set(tree) == {"item_embedding"}
    np.testing.assert_array_equal(values["frozen"]["item_embedding"]["full"], latents)


def test_the_first_peft_scores_are_the_frozen_models_bit_for_bit():
    peft = FedMF(item_embedding=ItemEmbedding(3, 2, "frozen", LoRA))
    variables = peft.init(
        jax.random.key(0), HISTORY, IDS, deterministic=True, method="score"
    )
    full = variables["frozen"]["item_embedding"]["full"]
    plain = FedMF(item_embedding=ItemEmbedding(3, 2, "frozen"))
    frozen = {
        "frozen": {"item_embedding": {"full": full}},
        "private": variables["private"],
    }
    for ids in (None, IDS):
        np.testing.assert_array_equal(
            apply(peft, variables, ids), apply(plain, frozen, ids)
        )


# FedNCF


def relu(x):
    return np.maximum(x, 0.0)


def ncf_loss_and_gradient(p, positives, negatives, loss):
    """FedNCF's scores, loss and gradients by hand, float64, layers 4 -> 6 -> 5 -> 1.

    `p` holds u, the item table, and the layers' matrices W0 (over [u, e]), W1, w2 and
    biases b0, b1.
    """
    items = np.concatenate([positives, negatives.ravel()])
    inputs = np.stack([np.concatenate([p["u"], p["table"][i]]) for i in items])
    before0 = inputs @ p["W0"] + p["b0"]
    before1 = relu(before0) @ p["W1"] + p["b1"]
    scores = relu(before1) @ p["w2"]
    count, num_negatives = negatives.shape
    s_pos, s_neg = scores[:count], scores[count:].reshape(negatives.shape)
    if loss is bpr:
        value = np.log1p(np.exp(s_neg - s_pos[:, None])).mean()
        slope = 1 / (1 + np.exp(s_pos[:, None] - s_neg)) / negatives.size
        to_scores = np.concatenate([-slope.sum(axis=1), slope.ravel()])
    else:
        total = count * (1 + num_negatives)
        value = (np.log1p(np.exp(-s_pos)).sum() + np.log1p(np.exp(s_neg)).sum()) / total
        to_scores = (
            np.concatenate([-1 / (1 + np.exp(s_pos)), 1 / (1 + np.exp(-s_neg.ravel()))])
            / total
        )
    to1 = np.outer(to_scores, p["w2"]) * (before1 > 0)
    to0 = (to1 @ p["W1"].T) * (before0 > 0)
    to_inputs = to0 @ p["W0"].T
    to_table = np.zeros_like(p["table"])
    np.add.at(to_table, items, to_inputs[:, 2:])
    return value, {
        "u": to_inputs[:, :2].sum(axis=0),
        "table": to_table,
        "W0": inputs.T @ to0,
        "b0": to0.sum(axis=0),
        "W1": relu(before0).T @ to1,
        "b1": to1.sum(axis=0),
        "w2": relu(before1).T @ to_scores,
    }


def ncf_parts(shared, rows, private):
    """The library's variables by the oracle's names, float64."""
    layers = {name: dict(tree) for name, tree in shared.items()}
    parts = {
        "u": private["user"],
        "table": rows["item_embedding"]["full"],
        "W0": np.concatenate(
            [layers["from_user"]["kernel"], layers["from_item"]["kernel"]]
        ),
        "b0": layers["from_item"]["bias"],
        "W1": layers["layers_0"]["kernel"],
        "b1": layers["layers_0"]["bias"],
        "w2": np.asarray(layers["output"]["kernel"])[:, 0],
    }
    return {name: np.asarray(value, np.float64) for name, value in parts.items()}


@pytest.mark.parametrize("loss", [bpr, bce])
def test_a_fedncf_client_takes_the_steps_that_are_worked_out_by_hand(loss):
    split = random_split([4, 3], num_items=11)
    model = make_model(11, backbone="fedncf(hidden=(6, 5), dropout=0.0)", features=2)
    training = make_training(model, loss, optax.sgd(0.5), num_negatives=2)
    server = init_server(model, jax.random.key(0))
    server["rows"] = jax.tree.map(lambda x: 10 * x, server["rows"])  # no tiny gradients
    private = init_private(model, jax.random.key(1), 2, server)
    own = gather_rows(private, jnp.int32(0))
    data = client_data(split, jax.random.key(2), 0, 0, num_negatives=2)
    sent = {SHARED: server[SHARED], ROWS: gather_rows(server[ROWS], data.item_ids)}
    update, after, found_loss = train_client(
        training, sent, own, {}, data, jax.random.key(3)
    )

    before = ncf_parts(server[SHARED], server[ROWS], own)
    params = {name: value.copy() for name, value in before.items()}
    ids = np.asarray(data.item_ids)
    positives, negatives = ids[data.positives], ids[data.negatives]
    losses = []
    for _ in range(2):
        value, gradient = ncf_loss_and_gradient(params, positives, negatives, loss)
        losses.append(value)
        params = {name: params[name] - 0.5 * gradient[name] for name in params}
    np.testing.assert_allclose(found_loss, np.mean(losses), rtol=1e-5)
    table = jnp.zeros((11, 2)).at[ids].add(update.rows["item_embedding"]["full"])
    rows = {"item_embedding": {"full": table}}
    moved = ncf_parts(update.shared, rows, {"user": after["user"] - own["user"]})
    for name, value in moved.items():
        expected = params[name] - before[name]
        assert np.abs(expected).max() > 1e-4, name
        np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("make", [FedNCF, PFedRec])
def test_dropout_is_for_training_only(make):
    model = make(item_embedding=ItemEmbedding(30, 8, init_scale=1.0), dropout=0.5)
    variables = model.init(
        jax.random.key(0), HISTORY, None, deterministic=True, method="score"
    )

    def score(deterministic, seed):
        return model.apply(
            variables, HISTORY, None, deterministic=deterministic, method="score",
            rngs={"dropout": jax.random.key(seed)},
        )  # fmt: skip

    np.testing.assert_array_equal(score(True, 0), score(True, 1))
    assert (score(False, 0) != score(False, 1)).all()
    # In expectation the last layer's input is what it is without dropout.
    many = jnp.mean(jnp.stack([score(False, seed) for seed in range(200)]), axis=0)
    correlation = np.corrcoef(many, score(True, 0))[0, 1]
    assert correlation > 0.9


@pytest.mark.parametrize("make", [FedNCF, PFedRec])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": ()}, r"hidden=\(\) must be a tuple of layer sizes"),
        ({"hidden": (4, 0)}, "must be a tuple of layer sizes"),
        ({"hidden": 64}, "hidden=64 must be a tuple of layer sizes"),
        ({"dropout": 1.0}, "dropout=1.0 must be at least 0 and below 1"),
        ({"dropout": -0.1}, "dropout=-0.1 must be"),
    ],
)
def test_networks_refuse_what_cannot_be(make, settings, message):
    with pytest.raises(InputError, match=message):
        make(item_embedding=ItemEmbedding(3, 2), **settings)


# PFedRec


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
    assert PFedRec(item_embedding=ItemEmbedding(3, 2)).local_schedule == (TRAINED,)
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
        sent = {SHARED: server[SHARED], ROWS: gather_rows(server[ROWS], data.item_ids)}
        update, after, _ = train_client(
            training, sent, own, {}, data, jax.random.key(3)
        )
        found[alternate] = sent, own, after, update, data, model
    sent, own, after, update, data, model = found[True]
    assert_same(after, found[False][2])

    def loss(rows):
        scores = model.apply(
            {ROWS: rows, PRIVATE: after}, data.history, None,
            deterministic=True, method="score",
        )  # fmt: skip
        return bpr(scores[data.positives], scores[data.negatives], data.mask)

    expected = jax.tree.map(jnp.negative, jax.grad(loss)(sent[ROWS]))
    for value, by_hand in zip(
        jax.tree.leaves(update.rows), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(value, by_hand, rtol=1e-4, atol=1e-7)
    other = jax.tree.leaves(found[False][3].rows)[0]
    assert np.abs(other - jax.tree.leaves(update.rows)[0]).max() > 1e-4


# FedPerGNN


def lightgcn(users, items, interactions):
    """One layer of LightGCN on the whole graph, averaged with layer 0: the users."""
    adjacency = np.zeros((len(users), len(items)))
    for user, item in interactions:
        adjacency[user, item] = 1.0
    by_user = adjacency.sum(axis=1, keepdims=True)
    by_item = adjacency.sum(axis=0, keepdims=True)
    weights = adjacency / np.sqrt(by_user) / np.sqrt(np.maximum(by_item, 1))
    return (users + weights @ items) / 2, (adjacency / by_user)


GRAPH = [(0, 0), (0, 1), (0, 3), (1, 1), (1, 2), (2, 1)]
DEGREES = np.array([1, 3, 1, 1, 0])


@pytest.mark.parametrize("normalization", ["symmetric", "user"])
@pytest.mark.parametrize("user", [0, 1, 2])
def test_fedpergnn_propagates_as_lightgcn_does_on_the_whole_graph(normalization, user):
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(3, 4)), rng.normal(size=(5, 4))
    propagated, shares = lightgcn(users, items, GRAPH)
    if normalization == "user":
        propagated = (users + shares @ items) / 2
    model = FedPerGNN(
        item_embedding=ItemEmbedding(5, 4, "frozen"), normalization=normalization
    )
    features = ItemFeatures(table=items, degrees=DEGREES)
    values, _ = model.fit(jax.random.key(0), features)
    assert ("degrees" in values["frozen"]) == (normalization == "symmetric")
    own = [item for who, item in GRAPH if who == user]
    # Padding is some item, and does not count.
    history = History(
        jnp.array([*own, 4, 4]), jnp.array([*([True] * len(own)), 0, 0], bool)
    )
    variables = {**values, "private": {"user": jnp.float32(users[user])}}
    scores = model.apply(variables, history, None, deterministic=True, method="score")
    np.testing.assert_allclose(scores, items @ propagated[user], rtol=1e-5)


def test_fedpergnn_without_a_history_is_half_a_dot_product():
    model = FedPerGNN(item_embedding=ItemEmbedding(3, 2, "frozen"))
    table = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, -6.0]])
    variables = {
        "frozen": {"item_embedding": {"full": table}, "degrees": jnp.ones(3, int)},
        "private": {"user": jnp.array([10.0, 1.0])},
    }
    nobody = History(jnp.zeros(2, int), jnp.zeros(2, bool))
    scores = model.apply(variables, nobody, None, deterministic=True, method="score")
    assert scores.tolist() == [6.0, 17.0, 22.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_layers": 2}, "num_layers=2: a client sees its own items only"),
        ({"normalization": "item"}, "normalization='item' is not known"),
    ],
)
def test_fedpergnn_refuses_what_a_client_cannot_see(settings, message):
    with pytest.raises(InputError, match=message):
        FedPerGNN(item_embedding=ItemEmbedding(3, 2), **settings)


def test_degrees_are_frozen_and_meet_those_of_the_embedding():
    model = FedPerGNN(item_embedding=ItemEmbedding(5, 4, "frozen", Hash))
    features = ItemFeatures(table=np.zeros((5, 4)), degrees=DEGREES)
    values, figures = model.fit(jax.random.key(0), features)
    assert set(values["frozen"]) == {"item_embedding", "degrees"}
    assert set(values["frozen"]["item_embedding"]) == {"full", "compressed"}
    np.testing.assert_array_equal(values["frozen"]["degrees"], DEGREES)
    assert "collision_rate" in figures
