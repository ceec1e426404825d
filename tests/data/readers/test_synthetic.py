"""Tests of data/synthetic.py: the planted levels, and generation at scale."""

import time

import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.candidates import sample_candidates
from fedpeft_jax.data.dataset import Dataset
from fedpeft_jax.data.readers.synthetic import (
    generate_long_tailed,
    load_synthetic,
    plant_synthetic,
)
from fedpeft_jax.data.registry import DATASETS, load_dataset
from fedpeft_jax.data.splits import leave_one_out


def equal(one: Dataset, other: Dataset) -> bool:
    return (
        np.array_equal(one.items, other.items)
        and np.array_equal(one.offsets, other.offsets)
        and one.item_text == other.item_text
    )


def histories(data: Dataset) -> list[list[int]]:
    return [part.tolist() for part in np.split(data.items, data.offsets[1:-1])]


def test_size_and_shape_of_the_default():
    data = load_synthetic()
    lengths = np.diff(data.offsets)
    assert (data.name, data.num_users, data.num_items) == ("synthetic", 1000, 600)
    assert data.notes == ()
    assert lengths.min() >= 5 and 35 < lengths.mean() < 45
    assert np.median(lengths) < 0.8 * lengths.mean()  # activity has a long tail
    popularity = np.sort(np.bincount(data.items, minlength=600))[::-1]
    assert popularity[:60].sum() > 0.25 * popularity.sum() and popularity[-1] > 0
    assert all(len(set(items)) == len(items) for items in histories(data))


def test_prompts():
    data = load_synthetic()
    assert data.item_text == plant_synthetic().prompts
    for text in data.item_text:
        assert text.startswith("Title: ") and ". Genres: " in text


def test_fixed_by_the_seed():
    assert equal(load_synthetic(3, 60, 40), load_synthetic(3, 60, 40))
    assert not equal(load_synthetic(3, 60, 40), load_synthetic(4, 60, 40))
    one, other = (generate_long_tailed(seed, 50, 90) for seed in (0, 1))
    assert not np.array_equal(one.items, other.items)
    assert np.array_equal(one.items, generate_long_tailed(0, 50, 90).items)


@pytest.mark.parametrize(("users", "items"), [(3, 200), (2500, 10), (1, 30)])
def test_every_user_and_item_is_there(users, items):
    data = load_synthetic(0, users, items)
    assert (data.num_users, data.num_items) == (users, items)
    assert np.array_equal(data.item_ids, np.arange(items))
    assert np.diff(data.offsets).min() >= 5
    assert len(data.item_text) == items


@pytest.mark.parametrize("seed", [0, 1])
def test_text_helps_and_the_items_own_taste_helps_again(seed):
    data, planted = load_synthetic(seed), plant_synthetic(seed)
    split = leave_one_out(data)
    candidates = sample_candidates(data, split, num=100, seed=seed)

    def hit_rate(scores: np.ndarray) -> float:
        target = scores[split.evaluated, split.test[split.evaluated]]
        others = np.take_along_axis(scores[split.evaluated], candidates, axis=1)
        return float(((others >= target[:, None]).sum(axis=1) < 10).mean())

    text = planted.user_text @ planted.item_text.T
    own = planted.user_own @ planted.item_own.T
    popularity = np.tile(np.bincount(split.train, minlength=600), (1000, 1))
    most_popular, from_text = hit_rate(popularity), hit_rate(text)
    without_own = hit_rate(text + planted.popularity)
    everything = hit_rate(text + own + planted.popularity)
    assert 0.3 < most_popular < 0.4
    assert from_text > most_popular + 0.12
    assert without_own > from_text
    assert everything > without_own + 0.12


def test_prompts_reveal_the_text_attributes_and_nothing_else():
    planted = plant_synthetic()
    counts = TfidfVectorizer().fit_transform(planted.prompts)
    features = TruncatedSVD(32, random_state=0).fit_transform(counts)
    features = np.c_[features, np.ones(len(features))]

    def explained(attributes: np.ndarray) -> float:
        fitted = np.linalg.lstsq(features[::2], attributes[::2], rcond=None)[0]
        error = attributes[1::2] - features[1::2] @ fitted
        return 1 - float(error.var() / attributes[1::2].var())

    assert explained(planted.item_text) > 0.75
    assert explained(planted.item_own) < 0.05


def test_the_last_item_is_as_typical_as_the_rest():
    data, planted = load_synthetic(), plant_synthetic()
    split = leave_one_out(data)
    users = np.repeat(np.arange(1000), split.counts)
    odds = planted.user_text @ planted.item_text.T + planted.popularity
    odds += planted.user_own @ planted.item_own.T
    of_users = np.bincount(users, odds[users, split.train]) / split.counts
    difference = odds[np.arange(1000), split.test] - of_users
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(1000)


@pytest.mark.parametrize(
    ("users", "items", "mean"),
    [(1, 4, 1), (300, 5, 20), (400, 150, 100), (30, 4000, 2500)],
)
def test_long_tailed_histories(users, items, mean):
    data = generate_long_tailed(0, users, items, mean)
    lengths = np.diff(data.offsets)
    assert (data.num_users, data.num_items) == (users, items)
    assert lengths.min() >= 3 and lengths.max() <= min(2000, items - 1)
    assert data.items.dtype == np.int32 and data.offsets.dtype == np.int64
    assert data.items.min() >= 0 and data.items.max() < items
    assert all(len(set(part)) == len(part) for part in histories(data))
    leave_one_out(data)


def test_long_tailed_at_scale():
    start = time.perf_counter()
    data = generate_long_tailed(0, 100_000, 100_000, 20)
    assert time.perf_counter() - start < 8  # 0.5 s; a loop over users takes minutes
    lengths = np.diff(data.offsets)
    assert 19 < lengths.mean() < 21
    popularity = np.sort(np.bincount(data.items, minlength=100_000))[::-1]
    assert popularity[:10_000].sum() > 0.4 * popularity.sum()
    assert popularity[:10].sum() < 0.1 * popularity.sum()
    # Neither ids nor time follow popularity.
    popular = np.bincount(data.items, minlength=100_000) >= popularity[1000]
    assert 300 < np.flatnonzero(popular).mean() * 1000 / 100_000 < 700
    first = popular[data.items[data.offsets[:-1]]].mean()
    last = popular[data.items[data.offsets[1:] - 1]].mean()
    assert abs(first - last) < 0.01


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_synthetic(num_items=9), "at least 10 items, got 9"),
        (lambda: load_synthetic(num_users=0), "at least 1 users, got 0"),
        (lambda: generate_long_tailed(0, 5, 3), "at least 4 items, got 3"),
        (lambda: generate_long_tailed(0, 5, 9, 0.5), "mean_length.*got 0.5"),
    ],
)
def test_too_small(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_registry(tmp_path):
    assert {"synthetic", "ml-1m"} <= set(DATASETS)
    assert equal(load_dataset("synthetic", data_seed=7), load_synthetic(7))
    with pytest.raises(InputError, match=r"'nope' is not known.*synthetic.*ml-1m"):
        load_dataset("nope")
    with pytest.raises(InputError, match=r"'ml-1m'.*--data_dir=DIR"):
        load_dataset("ml-1m")
    with pytest.raises(InputError, match=r"'synthetic' reads no files.*--data_dir"):
        load_dataset("synthetic", data_dir=tmp_path)
    with pytest.raises(InputError, match=r"ml-1m.zip"):
        load_dataset("ml-1m", data_dir=tmp_path)
