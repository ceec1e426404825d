"""A newcomer with the history of a client is recommended what the client is."""

import numpy as np
import polars as pl
import pytest

from fedpeft_jax import train
from tests.small_runs import SETTINGS, small_runs

K, USERS = 5, 12


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


@pytest.fixture(scope="module")
def model():
    """A model whose clients took part often enough to be done."""
    settings = {"rounds": 150, "cohort_fraction": 0.5, "eval_every": 150}
    settings |= {"baselines": "random", "client_optimizer": "adam(learning_rate=0.03)"}
    return train(progress=False, **{**SETTINGS, **settings})


def overlap(model, histories, users):
    own = model.recommend(users, k=K, exclude_history="train")
    shares = []
    for history, user in zip(histories, users, strict=True):
        mine = own.filter(pl.col("user") == user)["item"]
        found = model.fold_in(history, k=K).recommendations["item"]
        shares.append(len({*mine} & {*found}) / K)
    return np.mean(shares)


def test_folding_a_client_in_gives_its_own_recommendations(model):
    users = model.user_ids[:USERS].tolist()
    histories = [
        model.history(user).filter(pl.col("part") == "train")["item"].to_list()
        for user in users
    ]
    others = [*histories[1:], histories[0]]
    same, chance = overlap(model, histories, users), overlap(model, others, users)
    assert same > 0.55
    assert same > 2 * chance


def test_the_loss_of_a_newcomer_settles(model):
    history = model.history(model.user_ids[0])["item"].to_list()
    losses = model.fold_in(history).losses
    quarter = len(losses) // 4
    last, before = losses[-quarter:].mean(), losses[-2 * quarter : -quarter].mean()
    assert losses[:5].mean() > 1.2 * last
    assert before - last < 0.25 * (losses[:5].mean() - last)
