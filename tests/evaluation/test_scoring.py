"""The score function of a model: every client with its own private parameters."""

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.typing import History
from fedpeft_jax.evaluation.scoring import model_scores
from fedpeft_jax.federated import init_private, init_server
from tests.helpers import make_model

I, U, D = 7, 5, 4  # noqa: E741


def test_scores_are_dot_products_of_the_right_client():
    model = make_model(I, "trained", features=D)
    server = init_server(model, jax.random.key(0))
    private = init_private(model, jax.random.key(1), U, server)
    variables = {**server, "private": private}
    (table,) = jax.tree.leaves(server["rows"])
    (users,) = jax.tree.leaves(private)
    clients = jnp.array([3, 0])
    history = History(jnp.zeros((2, 1), jnp.int32), jnp.ones((2, 1), bool))
    score = model_scores(model)
    expected = np.asarray(users)[[3, 0]] @ np.asarray(table).T
    whole = score(variables, clients, history, None)
    np.testing.assert_allclose(whole, expected, rtol=1e-5, atol=1e-6)
    ids = jnp.array([[6, 2, 2], [1, 0, 6]])
    some = score(variables, clients, history, ids)
    np.testing.assert_allclose(
        some, np.take_along_axis(expected, np.asarray(ids), 1), rtol=1e-5, atol=1e-6
    )
