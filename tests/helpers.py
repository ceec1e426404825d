"""Small federated problems, and an engine that runs rounds of them."""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fedpeft_jax.backbones import BACKBONES
from fedpeft_jax.core.ragged import Ragged
from fedpeft_jax.core.roles import FROZEN
from fedpeft_jax.core.sampling import FixedCohorts
from fedpeft_jax.core.specs import resolve
from fedpeft_jax.data import Split
from fedpeft_jax.embeddings import EMBEDDINGS, ItemEmbedding
from fedpeft_jax.federated import (
    Aggregator,
    Algorithm,
    LocalTraining,
    Tiles,
    fresh_negatives,
    init_private,
    init_server,
    make_run_rounds,
    make_state,
    make_tiles,
    plan_cohorts,
)
from fedpeft_jax.federated.aggregators import mean
from fedpeft_jax.federated.losses import bpr

ADAM = optax.adam(0.05)
ROOT = pathlib.Path(__file__).parents[1]
REAL_DATA = ROOT.parent / "shared" / "data"


def make_split(trains, num_items):
    """A split with these training items and nothing held out."""
    nobody = np.full(len(trains), -1, np.int32)
    return Split(
        name="toy",
        num_items=num_items,
        train=Ragged.from_rows([np.sort(t) for t in trains]),
        valid=nobody,
        test=nobody.copy(),
    )


def random_split(counts, num_items, seed=0):
    """A split whose clients have `counts` random items each."""
    rng = np.random.default_rng(seed)
    return make_split(
        [rng.choice(num_items, n, replace=False) for n in counts], num_items
    )


def make_model(
    num_items, full="trained", embedding=None, backbone="fedmf", features=4, **kwargs
):
    """A model of registered parts: `embedding` and `backbone` are specs."""
    compressed = embedding and resolve(embedding, EMBEDDINGS, "embedding")
    return resolve(backbone, BACKBONES, "backbone")(
        item_embedding=ItemEmbedding(num_items, features, full, compressed), **kwargs
    )


def make_training(model, loss=bpr, optimizer=None, num_negatives=1, **kwargs):
    """Local training with Adam at 0.05 and fresh negatives unless given."""
    num_items = model.item_embedding.num_items
    kwargs.setdefault("sampler", fresh_negatives(num_items, num_negatives))
    return LocalTraining(model=model, loss=loss, optimizer=optimizer or ADAM, **kwargs)


class Counted:
    """BPR that counts how often it is traced."""

    def __init__(self):
        self.traces = 0

    def __call__(self, positives, negatives, mask):
        self.traces += 1
        return bpr(positives, negatives, mask)


def copy(tree):
    """The same arrays in buffers of their own, for a function that donates them."""
    return jax.tree.map(lambda x: x.copy(), tree)


def client_key(key, round_, client_id):
    """A client's key of a round, as the design defines it."""
    return jax.random.fold_in(jax.random.fold_in(key, round_), client_id)


def client_data(split, key, round_, client_id, capacity=None, num_negatives=1):
    """What a client trains on in a round."""
    sampler = fresh_negatives(split.num_items, num_negatives)
    capacity = capacity or int(max(split.counts))
    store = sampler.make_store(split)
    draw = jax.jit(sampler.draw, static_argnums=4)
    return draw(key, round_, client_id, store, capacity)


@dataclasses.dataclass(frozen=True, eq=False)
class Engine:
    """Everything that rounds of one problem need; compiled once.

    The plan always has `plan_rounds` rounds, whatever number of them is run.
    """

    split: Split
    training: LocalTraining
    cohort_size: int
    aggregator: Aggregator = dataclasses.field(default_factory=mean)
    tiles: Tiles | None = None
    plan_rounds: int = 3
    seed: int = 0
    pipelines: dict = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def algorithm(self):
        return Algorithm(self.training, self.aggregator, **self.pipelines)

    @functools.cached_property
    def shapes(self):
        return self.tiles or make_tiles(
            self.split.counts, self.cohort_size, max_buckets=1
        )

    @functools.cached_property
    def run(self):
        return make_run_rounds(self.algorithm, self.shapes)

    @functools.cached_property
    def store(self):
        return self.training.sampler.make_store(self.split)

    def start(self, fitted=None):
        """The state before the first round, and the frozen tables."""
        model, keys = self.training.model, [jax.random.key(i) for i in range(3)]
        server = init_server(model, keys[0], fitted)
        private = init_private(model, keys[1], self.split.num_clients, server)
        state = make_state(
            server,
            private,
            self.algorithm,
            keys[2],
            num_clients=self.split.num_clients,
        )
        return state, server[FROZEN]

    def plan(self, first_round):
        return plan_cohorts(
            self.shapes,
            self.split.counts,
            sampling=FixedCohorts(self.split.num_clients, self.cohort_size),
            seed=self.seed,
            first_round=first_round,
            num_rounds=self.plan_rounds,
        )

    def arguments(self, state, frozen, num_rounds):
        """What `run` is called with."""
        plan = self.plan(int(state.round))
        return (
            copy(state),
            frozen,
            self.store,
            jnp.asarray(plan.client_ids),
            jnp.asarray(plan.num_tiles),
            jnp.int32(num_rounds),
        )

    def rounds(self, state, frozen, num_rounds=1):
        """The state after some rounds, and their report."""
        return self.run(*self.arguments(state, frozen, num_rounds))


def assert_same(actual, expected):
    """Two trees are equal bit for bit."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


def assert_close(actual, expected, rtol=1e-5, atol=1e-6):
    """Two trees are equal up to rounding."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def largest_change(after, before):
    """The largest absolute difference of two trees."""
    return max(
        float(jnp.max(jnp.abs(a - b)))
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True)
    )
