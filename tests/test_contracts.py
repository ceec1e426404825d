"""What every recommender promises with every item embedding.

The cases come from the registries: a newly registered plugin is covered here without a
line of this file. The toy plugins of `tests/toys.py` are registered for the time of
these tests and meet the same promises.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.backbones import BACKBONES, Backbone, fit_model, schedule_of
from fedpeft_jax.core.roles import (
    FROZEN,
    PRIVATE,
    ROWS,
    SENT,
    SHARED,
    TRAINED,
    gather_rows,
    scatter_add_rows,
    select,
)
from fedpeft_jax.core.specs import resolve
from fedpeft_jax.core.typing import History
from fedpeft_jax.embeddings import EMBEDDINGS, ItemFeatures
from fedpeft_jax.federated import AGGREGATORS, ClientUpdate
from fedpeft_jax.federated.client import train_client
from fedpeft_jax.federated.losses import LOSSES
from fedpeft_jax.federated.state import init_private, init_server, make_state
from tests import toys
from tests.helpers import (
    Engine,
    assert_close,
    assert_same,
    client_data,
    largest_change,
    make_model,
    make_training,
    random_split,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_ITEMS, FEATURES = 23, 4
SPLIT = random_split([3, 1, 5, 2, 4, 3], NUM_ITEMS)
CLIENT = 2
LATENTS = np.random.default_rng(0).normal(0, 0.3, (NUM_ITEMS, FEATURES))
ENCODINGS = np.random.default_rng(1).normal(0, 1, (NUM_ITEMS, 16))
IDS = {
    "every row": None,
    "0-d": jnp.int32(3),
    "1-d": jnp.array([5, 0, 5]),
    "2-d": jnp.array([[1, 2, 3], [22, 1, 0]]),
}
# The specs that stand for a plugin here, where its defaults are too large for so few
# items or leave a branch out; any other stands for itself. Layers are wide enough that
# dropout and ReLU never silence all of one at once.
SPECS = {
    "hash": (
        "hash(num_buckets=7)",
        "hash(num_buckets=7, num_hashes=12, pooling='senet', reduction=1)",
    ),
    "rq": ("rq(num_codebooks=2, codebook_size=5, quantizer='kmeans')",),
    "fedncf": ("fedncf(hidden=(16, 12))",),
    "pfedrec": ("pfedrec(hidden=(16, 12))", "pfedrec(hidden=(12,), alternate=True)"),
    "fedpergnn": ("fedpergnn", "fedpergnn(normalization='user')"),
}


def specs_of(names):
    return [spec for name in names for spec in SPECS.get(name, (name,))]


EVERY_SETTING = [
    (full, embedding)
    for full in ("trained", "frozen", None)
    for embedding in (None, *specs_of(EMBEDDINGS), *toys.EMBEDDINGS)
    if full or embedding
]
EVERY_PAIR = list(itertools.product(specs_of(BACKBONES), EVERY_SETTING))
TOY_PAIRS = list(
    itertools.product(toys.BACKBONES, [("trained", None), ("frozen", "toy_codes")])
)


def is_slow(number, loss, backbone, full, embedding):
    """Whether a case waits for `-m slow`.

    Every pair runs in BPR or in BCE each time, by turns, and in the other then. A
    trained table with an adapter beside it works, but nobody's results rest on it, and
    variants of a recommender or of an embedding are tested in a few combinations.
    """
    variants = [spec for s in SPECS.values() for spec in s[1:]]
    variant = backbone in variants
    return (
        ("bpr", "bce")[number % 2] != loss
        or (full == "trained" and embedding is not None)
        or (full is None and embedding in toys.EMBEDDINGS)
        or (variant and (full, embedding) != ("frozen", "lora"))
        or (embedding in variants and backbone != "fedmf")
    )


CASES = [
    pytest.param(
        (loss, backbone, *setting),
        id=f"{loss}-{backbone}-{setting[0] or 'none'}-{setting[1] or 'none'}",
        marks=[pytest.mark.slow] if is_slow(number, loss, backbone, *setting) else [],
    )
    for number, (backbone, setting) in enumerate(EVERY_PAIR)
    for loss in ("bpr", "bce")
] + [
    pytest.param(
        ("toy_cross_entropy", backbone, *setting),
        id=f"{backbone}-{setting[0]}-{setting[1] or 'none'}",
    )
    for backbone, setting in TOY_PAIRS
]


class Counted:
    """A loss that counts how often it is traced."""

    def __init__(self, loss):
        self.loss, self.traces = loss, 0

    def __call__(self, positives, negatives, mask):
        assert negatives.shape == (*positives.shape, 3)
        self.traces += 1
        return self.loss(positives, negatives, mask)


class Case:
    """One recommender on one item embedding, and rounds of it."""

    def __init__(self, loss, backbone, full, embedding):
        # Three negatives per positive, and the toy aggregator brings two sums.
        loss = resolve(loss, LOSSES, "loss")()
        aggregator = resolve("toy_second_moment", AGGREGATORS, "aggregator")()
        self.model = make_model(NUM_ITEMS, full, embedding, backbone, FEATURES)
        features = ItemFeatures(
            ENCODINGS.astype(np.float32),
            LATENTS.astype(np.float32),
            LATENTS.astype(np.float32),
            np.bincount(SPLIT.train.values, minlength=NUM_ITEMS),
        )
        self.fitted = fit_model(self.model, jax.random.key(3), features).values
        self.server = init_server(self.model, jax.random.key(0), self.fitted)
        self.private = init_private(
            self.model, jax.random.key(1), SPLIT.num_clients, self.server
        )
        training = make_training(self.model, Counted(loss), num_negatives=3)
        self.engine = Engine(SPLIT, training, 3, aggregator)
        self.state = make_state(
            self.server,
            self.private,
            self.engine.algorithm,
            jax.random.key(2),
            num_clients=SPLIT.num_clients,
        )
        self.data = client_data(SPLIT, self.state.key, 0, CLIENT, num_negatives=3)

    @functools.cached_property
    def three_rounds(self):
        """The states after 0, 1, 2 and 3 rounds."""
        states = [self.state]
        for _ in range(3):
            state, report = self.engine.rounds(states[-1], self.server[FROZEN])
            assert report.finite
            states.append(state)
        return states

    @functools.cached_property
    def variables(self):
        """One client's variables, away from where LoRA's `B` is zero."""
        moved = self.three_rounds[-1]
        return {
            SHARED: moved.shared,
            ROWS: moved.rows,
            FROZEN: self.server[FROZEN],
            PRIVATE: self.own(CLIENT, moved.private),
        }

    def own(self, client, private=None):
        return jax.tree.map(lambda x: x[client], private or self.private)

    @property
    def history(self):
        """The client's items by global id, padded by the last item."""
        ids = jnp.minimum(self.data.item_ids[self.data.positives], NUM_ITEMS - 1)
        return History(ids, self.data.mask)

    def score(self, variables, history, ids):
        return self.model.apply(
            variables, history, ids, deterministic=True, method="score"
        )

    def on_gathered(self, variables):
        """The variables a client holds: its own rows of every per-item table."""
        ids = self.data.item_ids
        return {
            **variables,
            ROWS: gather_rows(variables[ROWS], ids),
            FROZEN: gather_rows(variables[FROZEN], ids),
        }


@pytest.fixture(scope="module", autouse=True)
def _registered():
    """A new plugin is one line of its registry."""
    with pytest.MonkeyPatch.context() as patch:
        for registry, plugins in [
            (EMBEDDINGS, toys.EMBEDDINGS),
            (BACKBONES, toys.BACKBONES),
            (LOSSES, toys.LOSSES),
            (AGGREGATORS, toys.AGGREGATORS),
        ]:
            for name, plugin in plugins.items():
                patch.setitem(registry, name, plugin)
        yield


@pytest.fixture(scope="module", params=CASES)
def case(request, _registered, quick_compilation):
    return Case(*request.param)


def test_plugins_are_what_the_engine_expects(case):
    assert isinstance(case.model, Backbone)
    assert case.model.private_init in ("per_client", "common")
    trained = {role for group in schedule_of(case.model) for role in group}
    assert trained <= set(TRAINED)
    assert jax.tree.leaves(case.private), "a client without anything of its own"
    for role in (ROWS, FROZEN):
        for leaf in jax.tree.leaves(case.server[role]):
            assert leaf.shape[0] == NUM_ITEMS
    for leaf in jax.tree.leaves(case.private):
        assert leaf.shape[0] == SPLIT.num_clients


def test_fitted_values_reach_the_server(case):
    if case.model.item_embedding.full:
        role = ROWS if case.model.item_embedding.full == "trained" else FROZEN
        table = case.fitted[role]
        np.testing.assert_array_equal(
            table["item_embedding"]["full"], LATENTS.astype(np.float32)
        )
    for role, tree in case.fitted.items():
        for path, value in jax.tree.leaves_with_path(tree):
            held = case.server[role]
            for key in path:
                held = held[key.key]
            np.testing.assert_array_equal(held, value)


@pytest.mark.parametrize("kind", IDS)
def test_shapes(case, kind):
    ids = IDS[kind]
    shape = (NUM_ITEMS,) if ids is None else ids.shape
    scores = case.score(case.variables, case.history, ids)
    assert scores.shape == shape
    assert scores.dtype == jnp.float32
    assert jnp.isfinite(scores).all()
    if ids is not None:
        every = case.score(case.variables, case.history, None)
        np.testing.assert_allclose(scores, every[ids], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", IDS)
def test_inner_is_the_embedding_times_the_vector(case, kind):
    ids, vector = IDS[kind], jnp.array([0.5, -1.0, 2.0, 0.25])
    embedding = case.model.item_embedding
    variables = {
        role: tree.get("item_embedding", {}) for role, tree in case.variables.items()
    }
    vectors = embedding.apply(variables, ids)
    shape = (NUM_ITEMS,) if ids is None else ids.shape
    assert vectors.shape == (*shape, FEATURES)
    assert vectors.dtype == jnp.float32
    assert jnp.abs(vectors).max() > 1e-3
    inner = embedding.apply(variables, ids, vector, method="inner")
    np.testing.assert_allclose(inner, vectors @ vector, rtol=1e-4, atol=1e-6)


def test_weighted_sum_is_the_weights_times_the_embeddings(case):
    ids, weights = jnp.array([5, 0, 5, 22]), jnp.array([0.5, -1.0, 2.0, 0.25])
    embedding = case.model.item_embedding
    variables = {
        role: tree.get("item_embedding", {}) for role, tree in case.variables.items()
    }
    expected = weights @ embedding.apply(variables, ids)
    assert jnp.abs(expected).max() > 1e-3
    actual = embedding.apply(variables, ids, weights, method="weighted_sum")
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_jit_and_vmap_change_nothing(case):
    score = lambda own, ids: case.score(  # noqa: E731
        {**case.variables, PRIVATE: own}, case.history, ids
    )
    private = case.three_rounds[-1].private
    loop = jnp.stack(
        [score(case.own(c, private), IDS["1-d"]) for c in range(SPLIT.num_clients)]
    )
    every = jax.jit(jax.vmap(score, (0, None)))(private, IDS["1-d"])
    np.testing.assert_allclose(every, loop, rtol=1e-5, atol=1e-6)


def test_gathered_rows_give_the_scores_and_gradients_of_whole_tables(case):
    data, ids = case.data, case.data.item_ids
    weights = jnp.cos(jnp.arange(ids.size)) * (ids < NUM_ITEMS)

    def objective(variables, history, ids):
        scores = case.score(variables, history, ids)
        return scores @ weights, scores

    # Integers (codes, buckets) have no gradient, and nobody asks for one.
    def gradient(variables, history, ids):
        def of(part):
            return objective({**variables, **part}, history, ids)

        return jax.grad(of, has_aux=True)(select(variables, TRAINED))

    real = jnp.minimum(ids, NUM_ITEMS - 1)
    dense, dense_scores = jax.jit(gradient)(case.variables, case.history, real)
    rows, scores = jax.jit(gradient)(
        case.on_gathered(case.variables), data.history, None
    )
    np.testing.assert_allclose(scores, dense_scores, rtol=1e-5, atol=1e-6)
    zeros = jax.tree.map(jnp.zeros_like, case.variables[ROWS])
    rows = {**rows, ROWS: scatter_add_rows(zeros, ids, rows[ROWS])}
    assert_close(rows, dense, rtol=1e-4, atol=1e-5)
    for leaf in jax.tree.leaves(dense):
        assert jnp.isfinite(leaf).all()
        assert jnp.abs(leaf).max() > 0, "a trained variable that does nothing"


def test_an_empty_place_makes_no_nan(case):
    data = client_data(SPLIT, case.state.key, 0, SPLIT.num_clients, num_negatives=3)
    variables = {
        **case.variables,
        ROWS: gather_rows(case.variables[ROWS], data.item_ids),
        FROZEN: gather_rows(case.variables[FROZEN], data.item_ids),
    }
    update, own = jax.jit(
        lambda: train_client(
            case.engine.training,
            select(variables, SENT),
            variables[PRIVATE],
            variables[FROZEN],
            data,
            jax.random.key(0),
        )
    )()
    assert update.loss == update.weight == 0
    for leaf in jax.tree.leaves((update.shared, update.rows)):
        assert not leaf.any()
    assert_same(own, variables[PRIVATE])


def test_three_rounds_are_one_compilation(case):
    after, loss = case.three_rounds[-1], case.engine.training.loss
    traces = loss.traces
    case.engine.rounds(after, case.server[FROZEN])
    assert loss.traces == traces
    assert case.engine.run._cache_size() == 1


def test_every_trained_role_moves_and_no_other(case):
    frozen = init_server(case.model, jax.random.key(0), case.fitted)[FROZEN]
    before, after = case.three_rounds[0], case.three_rounds[-1]
    assert_same(case.server[FROZEN], frozen)
    for name in ("shared", "rows", "private"):
        old, new = getattr(before, name), getattr(after, name)
        assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, old)
        if jax.tree.leaves(old):
            assert largest_change(new, old) > 1e-4
    assert jax.tree.leaves((before.shared, before.rows)) or (
        case.model.item_embedding.full == "frozen"
    )
    assert int(after.aggregator) == 3  # the toy aggregator counts its rounds


def test_private_parameters_stay_where_they_are(case):
    for round_, (before, after) in enumerate(itertools.pairwise(case.three_rounds)):
        cohort = case.engine.plan(round_).client_ids[0]
        others = np.setdiff1d(np.arange(SPLIT.num_clients), cohort)
        assert_same(
            jax.tree.map(lambda x, c=others: x[c], after.private),
            jax.tree.map(lambda x, c=others: x[c], before.private),
        )
        moved = jax.tree.map(
            lambda x, y: np.any((x != y).reshape(len(x), -1), axis=1),
            after.private,
            before.private,
        )
        moved = np.any(np.stack(jax.tree.leaves(moved)), axis=0)
        np.testing.assert_array_equal(np.flatnonzero(moved), np.sort(cohort))
    # What is uploaded has the structure of what the server sent, so nothing else is.
    sent = select(case.on_gathered(case.variables), SENT)
    update, own = jax.eval_shape(
        lambda: train_client(
            case.engine.training,
            sent,
            case.variables[PRIVATE],
            gather_rows(case.variables[FROZEN], case.data.item_ids),
            case.data,
            jax.random.key(0),
        )
    )
    assert isinstance(update, ClientUpdate)
    shapes = functools.partial(jax.tree.map, jnp.shape)
    assert shapes({SHARED: update.shared, ROWS: update.rows}) == shapes(sent)
    assert shapes(own) == shapes(case.variables[PRIVATE])
