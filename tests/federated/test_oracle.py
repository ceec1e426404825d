"""One whole round against a dense float64 oracle that shares no code with it.

The oracle is the textbook: a Python loop over the clients, a private copy of the whole
table for each, gradients derived by hand, Adam over every entry. It is given the
negatives, nothing else.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedpeft_jax.federated.aggregators import mean, row_mean, with_server_optimizer
from fedpeft_jax.federated.cohorts import make_tiles
from tests.helpers import (
    Engine,
    client_data,
    make_model,
    make_training,
    random_split,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

LEARNING_RATE = 0.05
NUM_ITEMS = 23
SERVER, COMPRESSED = "item_embedding", "compressed"


class Adam:
    """Kingma and Ba, Adam, ICLR 2015, algorithm 1; for a dict of arrays."""

    def __init__(self, params):
        self.first = {k: np.zeros_like(v) for k, v in params.items()}
        self.second = {k: np.zeros_like(v) for k, v in params.items()}
        self.time = 0

    def step(self, params, gradient):
        self.time += 1
        for name, g in gradient.items():
            self.first[name] = 0.9 * self.first[name] + 0.1 * g
            self.second[name] = 0.999 * self.second[name] + 0.001 * g**2
            first = self.first[name] / (1 - 0.9**self.time)
            second = self.second[name] / (1 - 0.999**self.time)
            params[name] -= LEARNING_RATE * first / (np.sqrt(second) + 1e-8)


def loss_and_gradient(params, table, positives, negatives):
    """BPR of `s_i = (table_i + full_i + B a_i) . u`, with whole tables.

    The pairs' mean of `ln(1 + exp(s_j - s_i))` has the derivative
    `-sigmoid(s_j - s_i) / N` to `s_i`, and minus that to `s_j`.
    """
    u, full = params["u"], params.get("full", 0.0)
    a, b = params.get("A", np.zeros((len(table), 1))), params.get("B", np.zeros((4, 1)))
    items = table + full + a @ b.T
    scores = items @ u
    count, num_negatives = negatives.shape
    to_scores, loss = np.zeros(len(table)), 0.0
    for i, row in zip(positives, negatives, strict=True):
        for j in row:
            loss += np.log1p(np.exp(scores[j] - scores[i])) / negatives.size
            slope = 1.0 / (1.0 + np.exp(scores[i] - scores[j])) / negatives.size
            to_scores[i] -= slope
            to_scores[j] += slope
    gradient = {
        "u": items.T @ to_scores,
        "full": np.outer(to_scores, u),
        "A": np.outer(to_scores, u @ b),
        "B": np.outer(u, to_scores @ a),
    }
    # Adam divides a gradient by its size: next to zero its sign would be rounding.
    sizes = np.abs(gradient["u"])
    assert sizes.min() > 1e-3 * sizes.max()
    return loss, {name: gradient[name] for name in params}


def oracle_round(server, users, table, split, cohort, negatives, *, by_row, rate):
    """Returns the server's parameters, the user vectors and the loss after a round."""
    total = {name: np.zeros_like(value) for name, value in server.items()}
    touched, weights, losses = np.zeros(NUM_ITEMS), 0.0, 0.0
    users = users.copy()
    for client in cohort:
        positives = split.train.row(client)
        params = {**{k: v.copy() for k, v in server.items()}, "u": users[client].copy()}
        adam, weight, local = Adam(params), len(positives), []
        for _ in range(2):
            loss, gradient = loss_and_gradient(
                params, table, positives, negatives[client]
            )
            adam.step(params, gradient)
            local.append(loss)
        for name in server:
            total[name] += weight * (params[name] - server[name])
        touched[np.union1d(positives, negatives[client])] += weight
        weights += weight
        losses += weight * np.mean(local)
        users[client] = params["u"]
    after = {}
    for name, value in server.items():
        divisor = weights
        if by_row and name in ("full", "A"):
            divisor = np.maximum(touched, 1.0)[:, None]
        after[name] = value + rate * total[name] / divisor
    return after, users, losses / weights


def to_oracle(state):
    """The state's server parameters by short names, and the user vectors."""
    rows = state.rows.get(SERVER, {})
    shared = state.shared.get(SERVER, {})
    server = {}
    if "full" in rows:
        server["full"] = rows["full"]
    if COMPRESSED in rows:
        server["A"], server["B"] = rows[COMPRESSED]["A"], shared[COMPRESSED]["B"]
    server = {k: np.asarray(v, np.float64) for k, v in server.items()}
    return server, np.asarray(state.private["user"], np.float64)


def randomize(tree, seed):
    """Values away from zero, so that A has a gradient and no gradient is rounding."""
    rng = np.random.default_rng(seed)

    def draw(x):
        values = rng.uniform(0.3, 0.7, x.shape) * rng.choice([-1, 1], x.shape)
        return jnp.asarray(values, x.dtype)

    return jax.tree.map(draw, tree)


AGGREGATORS = {
    "mean": (mean(), False, 1.0),
    "row_mean": (row_mean(), True, 1.0),
    "sgd(2)": (with_server_optimizer(mean(), optax.sgd(2.0)), False, 2.0),
}

CASES = {
    "trained": dict(full="trained"),
    "frozen + lora": dict(full="frozen", embedding="lora(rank=2)", max_buckets=2),
    "none + lora, two negatives, server sgd": dict(
        full=None, embedding="lora(rank=3)", aggregator="sgd(2)", num_negatives=2
    ),
    "trained + lora, row mean": dict(
        full="trained", embedding="lora(rank=2)", aggregator="row_mean"
    ),
    # 18 x 2 negatives, 5 unseen items: the batch repeats negatives, which share a row.
    "repeats": dict(full="trained", counts=(15, 2, 6, 18, 4, 9), num_negatives=2),
}


@pytest.mark.parametrize("case", CASES)
def test_two_rounds_equal_the_dense_oracle(case):
    settings = {"aggregator": "mean", "num_negatives": 1, "embedding": None}
    settings |= {"counts": (5, 1, 3, 7, 2, 4, 6, 3), "max_buckets": 1} | CASES[case]
    aggregator, by_row, rate = AGGREGATORS[settings["aggregator"]]
    num_negatives = settings["num_negatives"]
    split = random_split(settings["counts"], NUM_ITEMS)
    model = make_model(NUM_ITEMS, settings["full"], settings["embedding"])
    training = make_training(
        model, optimizer=optax.adam(LEARNING_RATE), num_negatives=num_negatives
    )
    tiles = make_tiles(
        split.counts, 5, max_buckets=settings["max_buckets"], client_chunk=3
    )
    engine = Engine(split, training, 5, aggregator, tiles)
    state, frozen = engine.start()
    state = state._replace(
        shared=randomize(state.shared, 1),
        rows=randomize(state.rows, 2),
        private=randomize(state.private, 3),
    )
    frozen = randomize(frozen, 4)
    table = np.zeros((NUM_ITEMS, 4))
    if frozen:
        table = np.asarray(frozen[SERVER]["full"], np.float64)
    server, users = to_oracle(state)

    for round_ in range(2):
        cohort = engine.plan(round_).client_ids[0]
        negatives, repeated = {}, False
        for client in cohort:
            data = client_data(
                split, state.key, round_, client, num_negatives=num_negatives
            )
            drawn = np.asarray(data.item_ids)[np.asarray(data.negatives)]
            negatives[client] = drawn[: split.counts[client]]
            repeated |= negatives[client].size > len(np.unique(negatives[client]))
        assert repeated == (case == "repeats")
        expected, users, loss = oracle_round(
            server, users, table, split, cohort, negatives, by_row=by_row, rate=rate
        )
        before, (state, report) = state, engine.rounds(state, frozen)
        actual, actual_users = to_oracle(state)

        np.testing.assert_allclose(report.losses[0], loss, rtol=1e-5)
        np.testing.assert_allclose(actual_users, users, rtol=1e-5, atol=5e-6)
        assert set(actual) == set(expected)
        for name, value in to_oracle(before)[0].items():
            np.testing.assert_allclose(
                actual[name], expected[name], rtol=1e-5, atol=5e-6
            )
            # The step itself, so that a small one cannot hide behind its table.
            step, expected_step = actual[name] - value, expected[name] - server[name]
            assert np.abs(expected_step).max() > 0.01
            np.testing.assert_allclose(step, expected_step, rtol=1e-3, atol=5e-6)
        server = expected
