"""Toy plugins: what it takes to add an embedding, a recommender, a pipeline stage, ...

Each is a class or a function and one line of a registry, and between them they use
every hook there is: values that are fitted to item text, codes in `frozen`, a private
network that starts alike everywhere, a local schedule, several negatives per positive,
more than one sum, a client's memory of what it sent, and noise on the sums.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.backbones.base import Backbone
from fedpeft_jax.core.roles import FROZEN, PRIVATE, ROWS, SHARED, private_layer
from fedpeft_jax.embeddings.base import CompressedEmbedding, Fitted, take
from fedpeft_jax.federated import Aggregator, Release, Sum, Sums, Upload
from fedpeft_jax.federated.losses import masked_mean


class Codes(CompressedEmbedding):
    """Items share the vectors of a codebook; who shares which is fitted and frozen."""

    num_codes: int = 3
    uses_text = True

    def setup(self):
        self.codebook = self.param(
            "codebook", nn.initializers.normal(0.1), (self.num_codes, self.features)
        )
        self.codes = self.variable(FROZEN, "codes", jnp.zeros, self.num_items, int)

    def __call__(self, ids=None):
        return self.codebook[take(self.codes.value, ids)]

    def inner(self, ids, vector):
        return (self.codebook @ vector)[take(self.codes.value, ids)]

    def fit(self, key, item_features):
        latents = np.asarray(item_features.latents)
        codes = np.argsort(np.argsort(latents[:, 0])) * self.num_codes // len(latents)
        means = [latents[codes == code].mean(axis=0) for code in range(self.num_codes)]
        values = {
            FROZEN: {"codes": jnp.asarray(codes, jnp.int32)},
            SHARED: {"codebook": jnp.asarray(np.stack(means), jnp.float32)},
        }
        return Fitted(values, {"codes_used": len(np.unique(codes))})


class ScoreFunction(Backbone):
    """A private network scores items; it is trained before the item embedding."""

    width: int = 3
    private_init = "common"
    local_schedule = ((PRIVATE,), (SHARED, ROWS))

    def setup(self):
        self.hidden = private_layer(nn.Dense)(self.width)
        self.output = private_layer(nn.Dense)(1)

    def score(self, history, ids, *, deterministic):
        return self.output(nn.tanh(self.hidden(self.item_embedding(ids))))[..., 0]


class Neighbours(Backbone):
    """A user vector, a shared layer, and the mean of the client's own items."""

    def setup(self):
        self.user = self.variable(
            PRIVATE,
            "user",
            lambda: nn.initializers.normal(0.1)(
                self.make_rng("params"), (self.item_embedding.features,)
            ),
        )
        self.mix = nn.Dense(self.item_embedding.features)

    def score(self, history, ids, *, deterministic):
        own = self.item_embedding(history.ids)
        taste = masked_mean_of_rows(own, history.mask)
        return self.item_embedding.inner(ids, self.user.value + self.mix(taste))


def masked_mean_of_rows(rows, mask):
    """The mean over the items of a history: [N, D] -> [D]."""
    weights = mask / jnp.maximum(jnp.sum(mask), 1)
    return weights.astype(rows.dtype) @ rows


def cross_entropy(positives, negatives, mask):
    """Binary cross-entropy of a positive and the mean over its M negatives."""
    from_negatives = jnp.mean(jax.nn.softplus(negatives), axis=1)
    return masked_mean(jax.nn.softplus(-positives) + from_negatives, mask)


def second_moment():
    """The weighted mean over one plus the root of the weighted second moment."""

    def scaled(update, power):
        return jax.tree.map(
            lambda x: update.weight * x**power, (update.shared, update.rows)
        )

    def map_update(update, key):
        (first, first_rows), (second, second_rows) = (
            scaled(update, 1),
            scaled(update, 2),
        )
        return Sums(
            shared=Sum({"first": first, "second": second}, update.weight),
            rows=Sum({"first": first_rows, "second": second_rows}, None),
            loss=Sum(update.weight * update.loss, update.weight),
        )

    def apply(sums, state, server, key):
        def combine(first, second):
            first, second = first / sums.shared.weight, second / sums.shared.weight
            return first / (1.0 + jnp.sqrt(second))

        step = {
            role: jax.tree.map(combine, part.value["first"], part.value["second"])
            for role, part in ((SHARED, sums.shared), (ROWS, sums.rows))
        }
        return step, state + 1

    return Aggregator(lambda server: jnp.int32(0), map_update, apply)


def error_feedback():
    """Sends shared parameters in half precision, and the rounding error next time.

    Seide et al., 1-bit stochastic gradient descent, Interspeech 2014.
    """

    def encode(update, memory, key):
        exact = jax.tree.map(jnp.add, update.shared, memory)
        sent = jax.tree.map(lambda x: x.astype(jnp.float16), exact)
        memory = jax.tree.map(lambda x, s: x - s.astype(jnp.float32), exact, sent)
        error = sum(jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(memory))
        return update._replace(shared=sent), memory, {"kept_back": jnp.float32(error)}

    def decode(payload):
        widen = lambda x: x.astype(jnp.float32)  # noqa: E731
        return payload._replace(shared=jax.tree.map(widen, payload.shared))

    def init(received):
        return jax.tree.map(jnp.zeros_like, received[SHARED])

    return Upload(init, encode, decode)


def uniform_noise(scale):
    """A stage that adds uniform noise; its key decides what."""

    def encode(update, state, key):
        add = lambda x: x + scale * jax.random.uniform(key)  # noqa: E731
        return update._replace(shared=jax.tree.map(add, update.shared)), state, {}

    return Upload(lambda received: (), encode, lambda payload: payload)


def noisy_sums(scale=0.1):
    """Adds normal noise to the sum of the shared parameters, and counts its rounds."""

    def apply(sums, rounds, cohort, key):
        leaves, structure = jax.tree.flatten(sums.shared.value)
        keys = jax.random.split(key, max(len(leaves), 1))
        noisy = [
            x + scale * jax.random.normal(k, x.shape)
            for x, k in zip(leaves, keys, strict=len(leaves) > 0)
        ]
        value = jax.tree.unflatten(structure, noisy)
        figures = {"noise_per_client": scale / cohort.size.astype(jnp.float32)}
        shared = sums.shared._replace(value=value)
        return sums._replace(shared=shared), rounds + 1, figures

    return Release(lambda server: jnp.int32(0), apply)


EMBEDDINGS = {"toy_codes": Codes}
BACKBONES = {"toy_score_function": ScoreFunction, "toy_neighbours": Neighbours}
LOSSES = {"toy_cross_entropy": lambda: cross_entropy}
AGGREGATORS = {"toy_second_moment": second_moment}
UPLOADS = {"toy_error_feedback": error_feedback}
