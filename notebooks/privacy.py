# %% [markdown]
# # Privacy
#
# Interactions never leave a client, but its update shows something of them. This
# notebook attacks the updates of a run, then trains with differential privacy, and puts
# epsilon and accuracy beside each other. `docs/privacy.md` has the definitions and the
# figures for MovieLens-1M.

# %%
import polars as pl

import fedpeft_jax as fj
from fedpeft_jax.data import synthetic_interactions
from fedpeft_jax.experiment.attack_study import Plan, study
from fedpeft_jax.experiment.callbacks import Callbacks

# %% [markdown]
# ## Data and settings
#
# Noise is paid for by the number of clients, so here there are 5000 of them, with 300
# items. The full table is trained, from random numbers. (`max_buckets=1` only makes the
# compilation shorter.)

# %%
data = fj.from_frame(synthetic_interactions(0, 5000, 300).interactions, name="shop")
settings = {
    "full": "trained",
    "embedding": "none",
    "full_init": "random",
    "rounds": 150,
    "eval_every": 20,
    "max_buckets": 1,
    "baselines": "most_popular",
}
data

# %% [markdown]
# ## An attack
#
# The attacker is the server. It sees the update of one client, or with secure
# aggregation only the sum of the updates of several, and ranks all items by how far
# their vectors moved towards each other ("moves"). AUC is the probability that an item
# of the client is above another item; 0.5 is chance. "popularity" looks at no update at
# all.


# %%
def attack(name, secure_sums, **changes):
    """Returns the success of attacks on 30 clients after 60 rounds."""
    config = fj.configure(**{**settings, "rounds": 60, **changes}, dataset="table")
    prepared = fj.prepare(config, dataset=data)
    plan = Plan(
        victims=30, observed_rounds=(1,), secure_sums=secure_sums, attacks=("moves",)
    )
    found = study(config, prepared, plan, Callbacks())
    return [
        {
            "run": name,
            "attack": one["attack"],
            "updates in the sum": one["clients"],
            "AUC": one["auc"]["mean"],
            "standard error": one["auc"]["error"],
        }
        for one in found
        if one["target"] == "member" and not one["knows_rows"]
    ]


attacks = attack("no noise", secure_sums=(1, 10))
pl.DataFrame(attacks).with_columns(pl.col(pl.Float64).round(3))

# %% [markdown]
# An update alone gives the items away. With the sum of ten updates, the attack on one
# of the ten clients finds no more than popularity does.
#
# ## The same attack with local noise
#
# In the local model, every client scales its update to a norm of at most `clip` and
# adds noise before it sends it. `docs/privacy.md` has what this costs in accuracy.

# %%
local = attack(
    "local noise",
    secure_sums=(1,),
    privacy="gaussian(clip=0.5, noise_multiplier=0.5)",
    privacy_model="local",
)
pl.DataFrame(local).with_columns(pl.col(pl.Float64).round(3))

# %% [markdown]
# ## Accuracy at a given epsilon
#
# In the central model the server adds noise to the sum of a cohort. It still sees the
# updates, but whatever it releases is private: with and without any one client, the
# probability of every result differs by at most a factor of e^epsilon (except with
# probability delta). `target_epsilon` computes the noise for the whole run, and
# `quantile` lets the clip follow the median norm. Updates are shorter after clipping,
# so the server takes larger steps; with more noise they must be smaller again.
# `run_together` runs the three side by side. Two of them differ in numbers alone and
# share one program.

# %%
noise = {"privacy": "gaussian(clip=0.5, quantile=0.5)"}
runs = {
    "no privacy": {},
    "epsilon 8": {
        **noise,
        "target_epsilon": 8.0,
        "server_optimizer": "sgd(learning_rate=10.0)",
    },
    "epsilon 2": {
        **noise,
        "target_epsilon": 2.0,
        "server_optimizer": "sgd(learning_rate=3.0)",
    },
}
configs = [
    fj.configure(**{**settings, **changes}, dataset="table", out=f"runs/privacy/{name}")
    for name, changes in runs.items()
]
results = fj.run_together(configs, dataset=data)

# %%
rows = []
for name, result in zip(runs, results, strict=True):
    test = result.summary["metrics"]["test"]["sampled"]
    privacy = result.summary["privacy"] or {}
    rows.append(
        {
            "run": name,
            "epsilon": privacy.get("epsilon"),
            "HR@10": test["hit_rate@10"],
            "NDCG@10": test["ndcg@10"],
        }
    )
pl.DataFrame(rows).with_columns(pl.col(pl.Float64).round(3))

# %%
fj.plot_curves({name: f"runs/privacy/{name}" for name in runs})

# %% [markdown]
# ## Epsilon grows with the rounds
#
# Every round releases something. The entries of `metrics.jsonl` have the epsilon so
# far.

# %%
fj.plot_curves(
    {name: f"runs/privacy/{name}" for name in ("epsilon 8", "epsilon 2")},
    metric="epsilon",
)
