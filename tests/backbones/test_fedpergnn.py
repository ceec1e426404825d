"""FedPerGNN against LightGCN on the whole graph."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.backbones import FedPerGNN, fit_model
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import History
from fedpeft_jax.embeddings import Hash, ItemEmbedding, ItemFeatures


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
    values, _ = fit_model(model, jax.random.key(0), features)
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
    values, figures = fit_model(model, jax.random.key(0), features)
    assert set(values["frozen"]) == {"item_embedding", "degrees"}
    assert set(values["frozen"]["item_embedding"]) == {"full", "compressed"}
    np.testing.assert_array_equal(values["frozen"]["degrees"], DEGREES)
    assert "collision_rate" in figures
