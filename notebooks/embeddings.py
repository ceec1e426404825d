# %% [markdown]
# # What the embeddings learn
#
# The server knows the text of the items, and learns latents and codes from it. The
# clients then train what the text does not say. The synthetic data set has a known
# answer: what makes a user like an item is drawn from five attributes that the title
# and the genres reveal, and from three attributes that belong to the item alone. So
# this notebook can look at the embeddings before and after training, and measure what
# is new.

# %%
import pathlib

import numpy as np
import polars as pl
from matplotlib import pyplot as plt
from sklearn.decomposition import PCA
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import cross_val_score

import fedpeft_jax as fj
from fedpeft_jax.data.readers.synthetic import plant_synthetic

_ = pl.Config.set_fmt_str_lengths(60)  # long titles in full

# %% [markdown]
# ## Before and after
#
# One run with LoRA beside the frozen table. `prepare` returns what the run had before
# its first round; `kept` names the folder in which the run kept its pretraining, so
# that it is read and not computed again. (`max_buckets=1` makes the compilation
# shorter.)

# %%
settings = {"embedding": "lora(rank=4)", "rounds": 300, "max_buckets": 1}
model = fj.train(**settings, out="runs/embeddings", progress=False)
kept = pathlib.Path("runs/embeddings/checkpoints/pretrained")
prepared = fj.prepare(fj.configure(**settings), kept=kept)

before = np.asarray(prepared.item_features.table)
after = model.item_embeddings
before.shape, after.shape

# %% [markdown]
# ## Nearest items by title
#
# The most popular item and its neighbours. Before training, neighbours share words,
# genres or years. After training they need not have a word in common; below, the
# planted attributes show what they share.

# %%
titles = list(model.titles)


def nearest(table, item, k=5):
    """Returns the titles of the items with the highest cosine."""
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    order = np.argsort(-(unit @ unit[item]))
    return [titles[other] for other in order if other != item][:k]


def compare(item):
    """Returns the neighbours of an item, before and after training."""
    columns = {"before": nearest(before, item), "after": nearest(after, item)}
    return pl.DataFrame(columns)


counts = np.bincount(prepared.split.train.values, minlength=len(titles))
popular = np.argsort(-counts)  # item numbers, the most popular one first
print(titles[popular[0]])
compare(popular[0])

# %%
print(titles[popular[1]])
compare(popular[1])

# %% [markdown]
# ## A map of the catalogue
#
# The first two principal components of the embeddings. Four of the ten themes of titles
# are coloured, each with its own marker.

# %%
themes = {
    "sea": "Anchor Captain Coral Harbour Island Sailor Tide Whale",
    "space": "Comet Galaxy Meteor Moon Orbit Planet Rocket Star",
    "court": "Castle Crown Dragon Knight Prince Queen Sword Throne",
    "crime": "Alibi Clue Detective Informer Killer Murder Suspect Witness",
}
themes = {name: set(words.split()) for name, words in themes.items()}
theme = np.array(
    [
        next((name for name, words in themes.items() if words & set(title.split())), "")
        for title in titles
    ]
)
looks = dict(zip(themes, ["o#0072B2", "^#D55E00", "s#009E73", "D#CC79A7"], strict=True))

figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", dpi=80)
for axes, table, title in zip(
    panels, (before, after), ("before training: text", "after training"), strict=True
):
    x, y = PCA(2).fit_transform(table).T
    axes.scatter(x[theme == ""], y[theme == ""], s=6, color="#dddddd", label="others")
    for name, look in looks.items():
        of = theme == name
        axes.scatter(x[of], y[of], s=14, marker=look[0], color=look[1:], label=name)
    axes.set(title=title, xlabel="first component", ylabel="second component")
panels[0].legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# ## What is new
#
# How well does a linear function of an embedding predict the planted attributes? The
# figure is R² on held-out items, 1 for a perfect prediction and 0 for the mean. Only
# the trained embedding can know the attributes that no text reveals.

# %%
planted = plant_synthetic()
order = np.asarray(model.item_ids)  # the ids of this data set are row numbers


def predicted(table, attributes):
    """Returns the mean R² over attributes, with ten folds of items."""
    ridge = RidgeCV(np.logspace(-3, 3, 13))
    scores = [
        cross_val_score(ridge, table, column, cv=10, scoring="r2").mean()
        for column in attributes[order].T
    ]
    return float(np.mean(scores))


attributes = {"in the text": planted.item_text, "in no text": planted.item_own}
pl.DataFrame(
    [
        {
            "attributes": name,
            "before": round(predicted(before, truth), 2),
            "after": round(predicted(after, truth), 2),
        }
        for name, truth in attributes.items()
    ]
)

# %% [markdown]
# Before training, the embedding says nothing about the attributes that no text reveals.
# After training it predicts them, and the attributes in the text better than before.
#
# ## Codes
#
# `rq` describes an item by a few codes: the first one of `l` codebooks gives a coarse
# group, and each further one divides what is left. `make_phases` fits the codes without
# training. The tree below shows two groups of the first codebook, with titles of their
# largest subgroups.

# %%
spec = "rq(num_codebooks=2, codebook_size=12, quantizer='kmeans')"
config = fj.configure(embedding=spec, rounds=300)
phases = fj.make_phases(config, prepared)
figures = phases[-1].fitted.figures
print({name: figures[name] for name in ("dead_codes", "distinct_codes")})

# %%
found = phases[-1].fitted.values["frozen"]
codes = np.asarray(found["item_embedding"]["compressed"]["codes"])
for first in range(2):
    group = np.flatnonzero(codes[:, 0] == first)
    print(f"code {first}: {len(group)} items")
    sizes = np.bincount(codes[group, 1])
    for second in np.argsort(-sizes, kind="stable")[:4]:
        inside = group[codes[group, 1] == second]
        names = "; ".join(titles[item] for item in inside[:3])
        print(f"  code {first}.{second}: {len(inside)} items, {names}")
