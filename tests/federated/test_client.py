"""One client's local training: batches, a fresh optimizer, keys by purpose."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedpeft_jax.backbones import Backbone
from fedpeft_jax.core.roles import (
    FROZEN,
    PRIVATE,
    ROWS,
    SHARED,
    gather_rows,
    scatter_add_rows,
    select,
)
from fedpeft_jax.federated.client import make_batches, train_client
from fedpeft_jax.federated.state import init_private, init_server
from tests.helpers import (
    Engine,
    assert_close,
    assert_same,
    client_data,
    largest_change,
    make_model,
    make_split,
    make_training,
    random_split,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_ITEMS = 17
SPLIT = random_split([5, 3], NUM_ITEMS)


@functools.partial(jax.jit, static_argnums=0)
def train_jitted(training, server, own, data, key):
    received = {
        SHARED: server[SHARED],
        ROWS: gather_rows(server[ROWS], data.item_ids),
    }
    frozen = gather_rows(server[FROZEN], data.item_ids)
    return train_client(training, received, own, frozen, data, key)


@functools.cache
def initial(model):
    server = init_server(model, jax.random.key(1))
    return server, init_private(model, jax.random.key(2), SPLIT.num_clients, server)


def train(training, client=0, capacity=5, seed=0):
    """The dense update of one client of `SPLIT`, and its private change."""
    server, private = initial(training.model)
    own = gather_rows(private, jnp.int32(client))
    data = client_data(SPLIT, jax.random.key(3), 0, client, capacity)
    update, after = train_jitted(training, server, own, data, jax.random.key(seed))
    rows = scatter_add_rows(
        jax.tree.map(jnp.zeros_like, server[ROWS]), update.item_ids, update.rows
    )
    change = jax.tree.map(jnp.subtract, after, own)
    return update._replace(rows=rows, item_ids=None), change


@pytest.fixture(scope="module")
def model():
    return make_model(NUM_ITEMS, "trained", "lora(rank=2)")


def test_the_proximal_term_pulls_uploads_back_and_spares_private_parameters(model):
    """FedProx by hand: one more gradient, mu (w - w_t), from the second step on."""
    mu, rate = 0.7, 0.5
    plain, pulled = (
        train(make_training(model, optimizer=optax.sgd(rate), proximal=weight))
        for weight in (0.0, mu)
    )
    first, _ = train(
        make_training(model, optimizer=optax.sgd(rate), local_epochs=1, proximal=mu)
    )
    # The first step has not moved yet; the second sees mu times the first one's way.
    for with_pull, without, way in zip(
        *(jax.tree.leaves((u.shared, u.rows)) for u in (pulled[0], plain[0], first)),
        strict=True,
    ):
        expected = without - rate * mu * way
        np.testing.assert_allclose(with_pull, expected, rtol=1e-4, atol=1e-6)
    assert_close(pulled[1], plain[1])
    assert (
        pulled[0].loss > plain[0].loss
    )  # the loss that is reported is the one that is trained


def test_one_batch_of_everything_is_the_full_batch(model):
    full = train(make_training(model))
    one_batch = train(make_training(model, local_batch_size=5))
    larger = train(make_training(model, local_batch_size=64))
    assert_close(one_batch, full)
    assert_close(larger, full)


def test_a_batch_of_padding_moves_nothing(model):
    # 3 pairs in batches of 2: two batches, or seven where the padding fills five more.
    training = make_training(model, local_batch_size=2)
    tight = train(training, client=1, capacity=3)
    padded = train(training, client=1, capacity=13)
    assert_close(padded, tight)
    assert np.abs(tight[0].rows["item_embedding"]["full"]).max() > 0.01


def test_padding_moves_nothing(model):
    training = make_training(model)
    assert_close(train(training, capacity=13), train(training, capacity=5))


def test_local_batches_cover_every_pair_once():
    mask = jnp.array([True] * 7 + [False] * 4)
    batches = make_batches(jax.random.key(0), mask, 3)
    assert batches.pairs.shape == batches.mask.shape == (4, 3)
    assert sorted(batches.pairs[batches.mask].tolist()) == list(range(7))
    # Valid pairs come first, so that no batch but the last live one is short.
    assert batches.mask.sum(axis=1).tolist() == [3, 3, 1, 0]
    others = {
        tuple(make_batches(jax.random.key(i), mask, 3).pairs.ravel()[:7].tolist())
        for i in range(10)
    }
    assert len(others) > 5


def test_every_batch_is_a_step(model):
    # At 0.05 a step, Adam's first step moves by exactly 0.05, so two steps move more.
    one = train(make_training(model, local_epochs=1))
    two = train(make_training(model, local_epochs=1, local_batch_size=3))
    assert np.abs(one[1]["user"]).max() == pytest.approx(0.05, rel=1e-3)
    assert np.abs(two[1]["user"]).max() > 0.06


def test_an_empty_place_gives_a_zero_update(model):
    for batch_size in (0, 2):
        training = make_training(model, local_batch_size=batch_size)
        update, change = train(training, client=SPLIT.num_clients)
        assert_same((update, change), jax.tree.map(jnp.zeros_like, (update, change)))
        assert update.loss == update.weight == 0


def test_weight_is_the_number_of_positives(model):
    for kwargs in [{}, {"local_batch_size": 2}]:
        assert train(make_training(model, **kwargs), 0)[0].weight == 5
        assert train(make_training(model, **kwargs), 1)[0].weight == 3


def test_uniform_weights_are_one_and_zero_for_an_empty_place(model):
    training = make_training(model, uniform_weights=True)
    weights = [train(training, client)[0].weight for client in (0, 1, 2)]
    assert [float(w) for w in weights] == [1, 1, 0]


def test_the_optimizer_is_fresh_in_every_participation():
    # Adam's first step has the size of the learning rate, whatever the gradient. With
    # moments kept over rounds the second one would not.
    split = make_split([[2, 5, 6, 7]], num_items=9)
    training = make_training(make_model(9), local_epochs=1)
    engine = Engine(split, training, cohort_size=1)
    state, frozen = engine.start()
    for round_ in range(3):
        before, (state, _) = state, engine.rounds(state, frozen)
        ids = client_data(split, state.key, round_, 0).item_ids
        step = (
            state.rows["item_embedding"]["full"]
            - (before.rows["item_embedding"]["full"])
        )
        np.testing.assert_allclose(np.abs(step[ids]), 0.05, rtol=1e-3)
        assert int(jnp.sum(jnp.any(step != 0, axis=1))) == 8


class Dice(Backbone):
    """Scores by the step's dropout key: the gradient of `p` tells what was drawn."""

    def setup(self):
        self.p = self.variable(PRIVATE, "p", jnp.zeros, ())

    def score(self, history, ids, *, deterministic):
        rows = self.item_embedding(ids)[..., 0]
        if deterministic:
            return rows
        return 0.0 * rows + self.p.value * jax.random.uniform(self.make_rng("dropout"))


DICE = Dice(item_embedding=make_model(NUM_ITEMS).item_embedding)
SGD = optax.sgd(1.0)


def minus_mean(positives, negatives, mask):
    return -jnp.mean(positives)


def drawn(epochs, batch_size=0, seed=0):
    """The sum of what the steps drew: SGD on the mean score of the positives."""
    training = make_training(
        DICE,
        loss=minus_mean,
        optimizer=SGD,
        local_epochs=epochs,
        local_batch_size=batch_size,
    )
    return float(train(training, seed=seed)[1]["p"])


def test_dropout_keys_differ_by_epoch_step_and_client():
    first = drawn(epochs=1)
    second = drawn(epochs=2) - first
    third = drawn(epochs=3) - first - second
    assert len({round(x, 4) for x in (first, second, third)}) == 3
    assert all(0 < x < 1 for x in (first, second, third))
    # 5 pairs in batches of 3: the epoch's two steps draw apart.
    step = drawn(epochs=1, batch_size=5)
    steps = drawn(epochs=1, batch_size=3)
    assert steps != pytest.approx(2 * step, rel=1e-3)
    assert drawn(epochs=1, seed=1) != pytest.approx(first, rel=1e-3)


class Alternating(Backbone):
    """`s = a b x` with a private factor that is trained before the shared one."""

    local_schedule = ((PRIVATE,), (SHARED,))

    def setup(self):
        self.a = self.variable(PRIVATE, "a", jnp.ones, ())
        self.b = self.param("b", lambda key: jnp.float32(2.0))

    def score(self, history, ids, *, deterministic):
        return self.a.value * self.b + 0.0 * self.item_embedding(ids)[..., 0]


def test_a_schedule_trains_its_groups_one_after_the_other():
    training = make_training(
        Alternating(item_embedding=make_model(NUM_ITEMS).item_embedding),
        loss=lambda positives, negatives, mask: jnp.mean(positives),
        optimizer=optax.sgd(0.5),
        local_epochs=1,
    )
    update, change = train(training)
    # a: 1 - 0.5 * 2 = 0; then b, which sees the new a: 2 - 0.5 * 0. At once: b = 1.5.
    assert float(change["a"]) == -1.0
    assert float(update.shared["b"]) == 0.0
    assert float(update.loss) == 2.0  # before the step
    # The table is in no group: it neither moves nor is lost.
    assert largest_change(update.rows, jax.tree.map(jnp.zeros_like, update.rows)) == 0
    assert select(update.rows, ("item_embedding",))
