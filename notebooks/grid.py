# %% [markdown]
# # A grid
#
# A grid runs one command with many settings, and gives one table. This notebook sweeps
# the rank of LoRA and the step of the clients with two seeds each, reads the table as a
# Polars frame, and plots it.

# %%
import subprocess

import polars as pl
from matplotlib import pyplot as plt

import fedpeft_jax as fj

# %% [markdown]
# ## The cells
#
# Every `--sweep` lists the values of a setting, or of one argument of its spec; several
# sweeps are multiplied. `--dry_run` prints the cells and the plan, and stops. The
# function below starts the command as a terminal would.

# %%
command = """
fedpeft-jax grid --out=runs/grid --seeds=0,1
    --full=none --rounds=200 --eval_every=20 --max_buckets=2
    --sweep=embedding=lora(rank=2)|lora(rank=16)
    --sweep=client_optimizer.learning_rate=0.01|0.03
"""


def start(*more):
    """Runs the command, and prints what it prints."""
    done = subprocess.run(
        [*command.split(), *more], stdout=subprocess.PIPE, text=True, check=True
    )
    print(done.stdout)


start("--dry_run")

# %% [markdown]
# ## Run it
#
# A grid that is stopped continues with the same command, cell by cell.

# %%
start()

# %% [markdown]
# ## Read it
#
# `load_grid` returns one row per cell: its status, every setting and every metric.

# %%
grid = fj.load_grid("runs/grid")
grid.select(
    "status", "seed", "embedding", "client_optimizer", "test_sampled_ndcg@10"
).head()

# %% [markdown]
# From here on it is a data frame like any other. The mean over seeds, the difference
# between them, and the bytes:

# %%
rows = (
    grid.group_by("embedding", "client_optimizer", maintain_order=True)
    .agg(
        pl.col("best_valid_ndcg@10").mean().alias("validation"),
        pl.col("test_sampled_ndcg@10").mean().alias("test"),
        (
            pl.col("test_sampled_ndcg@10").max() - pl.col("test_sampled_ndcg@10").min()
        ).alias("between seeds"),
        (pl.col("total_bytes").mean() / 1e6).round(0).alias("megabytes"),
    )
    .sort("validation", descending=True)
)
rows.with_columns(pl.col("validation", "test", "between seeds").round(3))

# %% [markdown]
# Settings are chosen by the validation items. The test items then measure the choice.
#
# ## Plot it
#
# `plot_curves` takes the folder of a grid: one curve for every configuration, with a
# band over its seeds.

# %%
fj.plot_curves("runs/grid", size=(7.2, 4.2))

# %%
figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained", dpi=90)
for step, marker, color in (("0.01", "o", "#0072B2"), ("0.03", "^", "#D55E00")):
    of = grid.filter(pl.col("client_optimizer").str.contains(f"={step}", literal=True))
    rank = of["embedding"].str.extract(r"rank=(\d+)").cast(int)
    axes.plot(
        rank, of["test_sampled_ndcg@10"], marker, color=color, label=f"step {step}"
    )
axes.set(
    xscale="log", xlabel="rank of LoRA", ylabel="test NDCG@10", title="two seeds each"
)
axes.set_xticks([2, 16], ["2", "16"])
axes.minorticks_off()
axes.legend(frameon=False)
plt.show()
