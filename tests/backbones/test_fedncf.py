"""FedNCF: a client's training against gradients worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedpeft_jax.core.roles import ROWS, SHARED, gather_rows
from fedpeft_jax.federated.client import train_client
from fedpeft_jax.federated.losses import bce, bpr
from fedpeft_jax.federated.state import init_private, init_server
from tests.helpers import client_data, make_model, make_training, random_split


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
    rows = gather_rows(server[ROWS], data.item_ids)
    received = {SHARED: server[SHARED], ROWS: rows}
    update, after = train_client(training, received, own, {}, data, jax.random.key(3))

    before = ncf_parts(server[SHARED], server[ROWS], own)
    parts = {name: value.copy() for name, value in before.items()}
    ids = np.asarray(data.item_ids)
    positives, negatives = ids[data.positives], ids[data.negatives]
    losses = []
    for _ in range(2):
        value, gradient = ncf_loss_and_gradient(parts, positives, negatives, loss)
        losses.append(value)
        parts = {name: parts[name] - 0.5 * gradient[name] for name in parts}
    np.testing.assert_allclose(update.loss, np.mean(losses), rtol=1e-5)
    table = jnp.zeros((11, 2)).at[ids].add(update.rows["item_embedding"]["full"])
    rows = {"item_embedding": {"full": table}}
    moved = ncf_parts(update.shared, rows, {"user": after["user"] - own["user"]})
    for name, value in moved.items():
        expected = parts[name] - before[name]
        assert np.abs(expected).max() > 1e-4, name
        np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-6, err_msg=name)
