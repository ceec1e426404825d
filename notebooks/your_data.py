# %% [markdown]
# # Your own data
#
# A data frame of interactions goes in, recommendations with titles come out. Polars,
# pandas, PyArrow and DuckDB tables all work; this notebook uses Polars.

# %%
import numpy as np
import polars as pl

import fedpeft_jax as fj

_ = pl.Config.set_fmt_str_lengths(60)  # long titles in full

# %% [markdown]
# ## Two tables
#
# A library lends books. Each loan has a reader, a book and a time, and each book has a
# title and a subject. Here the tables are made up: 400 readers like two of six subjects
# each, and take most of their books from these.

# %%
rng = np.random.default_rng(0)
subjects = ["Astronomy", "Cooking", "History", "Music", "Sailing", "Gardening"]
forms = ["{} for Beginners", "The Art of {}", "Masters of {}", "{} at Home", "Why {}?"]

books = pl.DataFrame(
    {
        "book": [f"b{number:03}" for number in range(180)],
        "subject": [subjects[number % 6] for number in range(180)],
    }
).with_columns(
    title=pl.Series(
        [
            f"{forms[number // 6 % 5].format(subjects[number % 6])} {number // 30 + 1}"
            for number in range(180)
        ]
    )
)
books.head(3)

# %%
loans = []
for reader in range(400):
    liked = rng.choice(6, size=2, replace=False)
    odds = np.where(np.isin(np.arange(180) % 6, liked), 12.0, 1.0)
    odds /= (np.arange(180) // 6 + 5) ** 0.5  # some books are more popular
    taken = rng.choice(
        180, size=rng.integers(8, 25), replace=False, p=odds / odds.sum()
    )
    loans += [
        (f"reader {reader}", f"b{book:03}", day) for day, book in enumerate(taken)
    ]
loans = pl.DataFrame(loans, schema=["reader", "book", "day"], orient="row")
loans.head(3)

# %% [markdown]
# ## The data set
#
# `from_frame` takes the names of the columns. The text of an item is a sentence of its
# columns; `title` is the name that results show.

# %%
data = fj.from_frame(
    loans,
    books.select("book", "title", genres="subject"),
    user_column="reader",
    item_column="book",
    time_column="day",
    name="library",
)
data

# %% [markdown]
# ## Train
#
# The last loan of each reader is the test item and the one before it the validation
# item; the others train.

# %%
model = fj.train(
    data,
    rounds=300,
    eval_every=20,
    embedding="lora(rank=4)",
    out="runs/your_data",
    progress=False,
)
test = model.summary["metrics"]["test"]["sampled"]
print(f"HR@10 {test['hit_rate@10']:.3f}, NDCG@10 {test['ndcg@10']:.3f}")

# %%
fj.plot_curves("runs/your_data")

# %% [markdown]
# ## Recommendations with titles
#
# Original ids go in and come out.

# %%
history = model.history("reader 7").join(books, on="title")
history["subject"].value_counts(sort=True)

# %%
model.recommend("reader 7", k=5)

# %% [markdown]
# For all readers at once, and joined with columns of your own. How often is a
# recommended book of one of the two subjects that the reader has most books of?

# %%
recommended = model.recommend(k=5).join(books, left_on="item", right_on="book")
favourite = (
    loans.join(books, on="book")
    .group_by("reader", "subject")
    .len()
    .sort("len", "subject", descending=True)
    .group_by("reader", maintain_order=True)
    .head(2)
)
matches = recommended.join(
    favourite, left_on=["user", "subject"], right_on=["reader", "subject"], how="semi"
)
print(f"{len(matches) / len(recommended):.0%} of the recommended books")

# %% [markdown]
# ## Somebody new
#
# A new reader with three books needs no round of training: `fold_in` trains a user
# vector on the reader's own device, with everything from the server frozen.

# %%
chosen = books.filter(pl.col("subject") == "Sailing")["book"].head(3).to_list()
model.fold_in(chosen, k=5).recommendations
