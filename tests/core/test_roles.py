"""Roles: rows by item, and layers whose parameters are private."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.roles import (
    FROZEN,
    PRIVATE,
    ROWS,
    SENT,
    SHARED,
    TRAINED,
    gather_rows,
    num_bytes,
    private_layer,
    scatter_add_rows,
    select,
)
from fedpeft_jax.federated.state import init_private, init_server
from tests.helpers import make_model
from tests.toys import ScoreFunction

pytestmark = pytest.mark.usefixtures("quick_compilation")


def test_which_roles_are_trained_and_which_are_sent():
    assert set(SENT) == {SHARED, ROWS}
    assert set(TRAINED) == {SHARED, ROWS, PRIVATE}
    assert len({SHARED, ROWS, FROZEN, PRIVATE}) == 4


def test_gather_and_scatter_are_transposes():
    table = {"a": jnp.arange(8.0).reshape(4, 2), "b": {"c": jnp.arange(4)}}
    ids = jnp.array([3, 1, 4])  # 4 is padding
    rows = gather_rows(table, ids)
    assert rows["a"].tolist() == [[6, 7], [2, 3], [6, 7]]
    assert rows["b"]["c"].tolist() == [3, 1, 3]
    assert rows["b"]["c"].dtype == table["b"]["c"].dtype
    back = scatter_add_rows(jax.tree.map(jnp.zeros_like, table), ids, rows)
    assert back["a"].tolist() == [[0, 0], [2, 3], [0, 0], [6, 7]]


def test_scatter_adds_over_a_batch_of_clients():
    values = jnp.array([[1.0, 2.0], [4.0, 8.0]])
    ids = jnp.array([[0, 1], [1, 3]])
    assert scatter_add_rows(jnp.zeros(3), ids, values).tolist() == [1.0, 6.0, 0.0]


def test_select_returns_only_the_given_roles():
    variables = {"params": {"w": 1}, "private": {"u": 2}}
    assert select(variables, SENT) == {"params": {"w": 1}, "rows": {}}


def test_num_bytes():
    assert num_bytes({}) == 0
    tree = {"a": jnp.zeros((3, 4)), "b": [jnp.zeros(5, jnp.int8), jnp.float32(1)]}
    assert num_bytes(tree) == 48 + 5 + 4
    assert num_bytes(jax.eval_shape(lambda: tree)) == 57


class Tower(nn.Module):
    """A shared and a private layer one after the other."""

    def setup(self):
        self.shared = nn.Dense(3)
        self.own = private_layer(nn.Dense)(2)

    def __call__(self, x):
        return self.own(self.shared(x))


def test_a_private_layer_is_the_same_layer_in_another_role():
    x = jnp.arange(4.0)
    variables = Tower().init(jax.random.key(0), x)
    assert {role: sorted(tree) for role, tree in variables.items()} == {
        SHARED: ["shared"],
        PRIVATE: ["own"],
    }
    assert jax.tree.map(jnp.shape, variables[PRIVATE]) == {
        "own": {"kernel": (3, 2), "bias": (2,)}
    }
    hidden = nn.Dense(3).apply({"params": variables[SHARED]["shared"]}, x)
    expected = nn.Dense(2).apply({"params": variables[PRIVATE]["own"]}, hidden)
    np.testing.assert_array_equal(Tower().apply(variables, x), expected)


def test_a_private_layer_has_the_gradient_of_the_layer():
    x = jnp.arange(4.0)
    variables = Tower().init(jax.random.key(0), x)
    gradient = jax.grad(lambda v: Tower().apply(v, x).sum())(variables)
    hidden = nn.Dense(3).apply({"params": variables[SHARED]["shared"]}, x)
    expected = np.repeat(np.asarray(hidden)[:, None], 2, axis=1)
    np.testing.assert_allclose(gradient[PRIVATE]["own"]["kernel"], expected)
    assert jnp.abs(gradient[SHARED]["shared"]["kernel"]).max() > 0


class PerClient(ScoreFunction):
    """The same private network, drawn for each client, on a shared layer."""

    private_init = "per_client"

    def setup(self):
        super().setup()
        self.shared = nn.Dense(4)

    def score(self, history, ids, *, deterministic):
        features = self.shared(self.item_embedding(ids))
        return self.output(nn.tanh(self.hidden(features)))[..., 0]


@pytest.mark.parametrize("kind", [ScoreFunction, PerClient])
def test_every_client_gets_a_private_layer(kind):
    model = kind(item_embedding=make_model(5).item_embedding)
    server = init_server(model, jax.random.key(0))
    own = init_private(model, jax.random.key(1), 3, server)
    assert jax.tree.map(jnp.shape, own) == {
        "hidden": {"kernel": (3, 4, 3), "bias": (3, 3)},
        "output": {"kernel": (3, 3, 1), "bias": (3, 1)},
    }
    kernels = np.asarray(own["hidden"]["kernel"])
    assert np.abs(kernels).min() > 0
    same = np.array_equal(kernels[0], kernels[1])
    assert same == (kind is ScoreFunction)
