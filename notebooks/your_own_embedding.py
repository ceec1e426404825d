# %% [markdown]
# # Your own embedding
#
# An item embedding decides what the clients train and send. This notebook writes one
# from nothing, tests it, and compares it with the built-in ones at equal size.
#
# The idea is the quotient-remainder trick (Shi et al., KDD 2020, arXiv 1909.02107):
# with `m` buckets, item `i` is the pair of its quotient and its remainder by `m`, and
# no two items have the same pair. Two small tables are enough,
#
# $$\mathrm{compressed}(i) = Q[i \,\mathrm{div}\, m] + R[i \bmod m].$$

# %%
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl

import fedpeft_jax as fj

# %% [markdown]
# ## The module
#
# The Flax collection of a variable says its federated role. Variables made by
# `self.param` are shared by all items: the clients train them, and they are sent whole.
# `ids` are the items whose vectors are wanted, or None for all of them.


# %%
class QuotientRemainder(fj.CompressedEmbedding):
    """The sum of a row of two shared tables."""

    num_buckets: int = 24

    def setup(self):
        num_quotients = -(-self.num_items // self.num_buckets)
        zeros = nn.initializers.zeros
        self.quotients = self.param("quotients", zeros, (num_quotients, self.features))
        self.remainders = self.param(
            "remainders", nn.initializers.normal(0.1), (self.num_buckets, self.features)
        )

    def __call__(self, ids=None):
        ids = jnp.arange(self.num_items) if ids is None else ids
        quotient, remainder = ids // self.num_buckets, ids % self.num_buckets
        return fj.take(self.quotients, quotient) + fj.take(self.remainders, remainder)


# %% [markdown]
# ## Test it
#
# A module is a pair of pure functions, `init` and `apply`, so that it can be tested
# without a run. All vectors must be those of the formula:

# %%
module = QuotientRemainder(num_items=600, features=32)
variables = module.init(jax.random.key(0), jnp.arange(3))
variables = jax.tree.map(  # random tables, also where they begin with zeros
    lambda x: jax.random.normal(jax.random.key(1), x.shape), variables
)
tables = jax.tree.map(np.asarray, variables["params"])
expected = [
    tables["quotients"][i // 24] + tables["remainders"][i % 24] for i in range(600)
]
np.testing.assert_allclose(module.apply(variables), expected, rtol=1e-6)
np.testing.assert_array_equal(
    module.apply(variables, jnp.array([599, 7])),
    np.asarray(module.apply(variables))[[599, 7]],
)
print("distinct vectors:", len(np.unique(np.round(module.apply(variables), 5), axis=0)))

# %% [markdown]
# ## Register it
#
# One line makes it a word of every setting, of the command line and of grids. A file in
# `fedpeft_jax/embeddings` with its line in the registry is also covered by the contract
# tests, with every recommender.

# %%
fj.EMBEDDINGS["quotient_remainder"] = QuotientRemainder

# %% [markdown]
# ## Compare it
#
# With `full="none"` there is no other item parameter, so that the comparison shows the
# compressed embedding alone. The rivals have about as many numbers: `hash` with 49
# rows, and `lora` of rank 2, whose number per round is `2 (I + D)`.

# %%
strategies = {
    "quotient-remainder": "quotient_remainder(num_buckets=24)",
    "hash": "hash(num_buckets=49)",
    "LoRA": "lora(rank=2)",
}
settings = {"full": "none", "rounds": 200, "eval_every": 10}
models = {
    name: fj.train(**settings, embedding=spec, out=f"runs/own/{name}", progress=False)
    for name, spec in strategies.items()
}

# %%
rows = []
for name, model in models.items():
    test = model.summary["metrics"]["test"]["sampled"]
    sent = model.summary["communication"]["uplink_bytes_per_client_round"]
    rows.append(
        {
            "embedding": name,
            "HR@10": test["hit_rate@10"],
            "NDCG@10": test["ndcg@10"],
            "numbers sent per round": sum(sent.values()) // 4,
        }
    )
pl.DataFrame(rows).with_columns(pl.col("HR@10", "NDCG@10").round(3))

# %%
fj.plot_curves({name: f"runs/own/{name}" for name in strategies})
