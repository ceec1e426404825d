# %% [markdown]
# # Privacy
#
# Interactions never leave a client, but its update shows something of them. This
# notebook attacks the updates of a run, then trains with differential privacy, and puts
# epsilon, accuracy and the success of the attack beside each other.

# %%
import polars as pl
from matplotlib import pyplot as plt

import fedpeft_jax as fj
from fedpeft_jax.experiment.attack_study import Plan, study
from fedpeft_jax.experiment.callbacks import Callbacks

# %% [markdown]
# ## The settings
#
# Every run trains LoRA without a full table for 200 rounds. In the *local* model every
# client scales its update to a norm of at most `clip` and adds noise before it sends
# it, so that the server sees no update without noise. In the *central* model the server
# sees the updates and adds the noise to their sum; what it releases is private, but not
# from the server. Both bound what the released variables say about any one client.

# %%
settings = {
    "full": "none",
    "embedding": "lora(rank=4)",
    "rounds": 200,
    "eval_every": 20,
}
noise = {"privacy": "gaussian(clip=0.5, quantile=0.5)"}
runs = {
    "no privacy": {},
    "central, epsilon 50": {**noise, "target_epsilon": 50.0},
    "central, epsilon 8": {**noise, "target_epsilon": 8.0},
}
models = {
    name: fj.train(**settings, **changes, out=f"runs/privacy/{name}", progress=False)
    for name, changes in runs.items()
}

# %% [markdown]
# ## Accuracy
#
# `epsilon` bounds the whole run: with and without any one client, the probability of
# whatever is released differs by at most a factor of e^epsilon (except with probability
# `delta`). Smaller is more private.

# %%
rows = []
for name, model in models.items():
    test = model.summary["metrics"]["test"]["sampled"]
    privacy = model.summary["privacy"]
    rows.append(
        {
            "run": name,
            "epsilon": privacy["epsilon"] if privacy else None,
            "HR@10": test["hit_rate@10"],
            "NDCG@10": test["ndcg@10"],
        }
    )
baselines = models["no privacy"].summary["baselines"]
popular = baselines["most_popular"]["test"]["sampled"]
rows.append(
    {
        "run": "most popular",
        "HR@10": popular["hit_rate@10"],
        "NDCG@10": popular["ndcg@10"],
    }
)
pl.DataFrame(rows).with_columns(pl.col(pl.Float64).round(3))

# %%
fj.plot_curves({name: f"runs/privacy/{name}" for name in runs})

# %% [markdown]
# With 1000 clients, of which 100 train in a round, the noise is large against the sum
# of so few updates. The same epsilon costs much less with more clients, because the
# noise does not grow with the cohort: `docs/privacy.md` has the figures for 6040
# clients.
