"""Tests of readers/synthetic.py: what text reveals, and what it does not."""

import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from fedpeft_jax.data import leave_one_out, load_synthetic, sample_candidates
from fedpeft_jax.data.readers.synthetic import plant_synthetic, synthetic_interactions


def test_prompts():
    raw = synthetic_interactions()
    assert tuple(raw.item_text.values()) == plant_synthetic().prompts
    for text in raw.item_text.values():
        assert text.startswith("Title: ") and ". Genres: " in text


@pytest.mark.parametrize("seed", [0, 1])
def test_text_helps_and_the_items_own_attributes_help_again(seed):
    data, planted = load_synthetic(seed), plant_synthetic(seed)
    split = leave_one_out(data)
    candidates = sample_candidates(data, split, num=100, seed=seed)

    def hit_rate(scores: np.ndarray) -> float:
        target = scores[split.evaluated, split.test[split.evaluated]]
        others = np.take_along_axis(scores[split.evaluated], candidates, axis=1)
        return float(((others >= target[:, None]).sum(axis=1) < 10).mean())

    text = planted.user_text @ planted.item_text.T
    own = planted.user_own @ planted.item_own.T
    popularity = np.tile(np.bincount(split.train.values, minlength=600), (1000, 1))
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
    users = split.train.owners
    odds = planted.user_text @ planted.item_text.T + planted.popularity
    odds += planted.user_own @ planted.item_own.T
    of_users = np.bincount(users, odds[users, split.train.values]) / split.counts
    difference = odds[np.arange(1000), split.test] - of_users
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(1000)
