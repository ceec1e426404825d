"""Baselines against hand-computed numbers, and against MovieLens-1M where it is."""

import numpy as np
import pytest

from fedpeft_jax.core.ragged import Ragged
from fedpeft_jax.core.typing import History
from fedpeft_jax.data import Split
from fedpeft_jax.evaluation.baselines import (
    BASELINES,
    Known,
    log_odds,
    most_popular,
    random_baseline,
    text_neighbours,
)
from fedpeft_jax.evaluation.ranking import Evaluator
from fedpeft_jax.federated import fresh_negatives, published_negatives
from tests.helpers import REAL_DATA


@pytest.fixture
def split():
    """Training counts 3, 2, 1, 0, 0, 1; the last client trains only."""
    return Split(
        name="hand-made",
        num_items=6,
        train=Ragged.from_rows([[0, 1], [0, 2], [0, 1, 5]]),
        valid=np.array([2, 1, -1], np.int32),
        test=np.array([3, 5, -1], np.int32),
    )


CANDIDATES = np.array([[4, 5], [3, -1]], np.int32)


def test_most_popular_counts_training_items_only(split):
    score_fn, counts = most_popular(Known(split))
    np.testing.assert_array_equal(counts, [3, 2, 1, 0, 0, 1])
    evaluator = Evaluator(split, CANDIDATES)
    # Client 0, item 3 (0): 4 is level, 5 above. Client 1, item 5 (1): 3 is below.
    ranks = lambda *which: evaluator.ranks(score_fn, counts, *which)  # noqa: E731
    assert_ranks(ranks("test", "sampled"), [1, 0], [1, 0])
    # In the catalogue client 1 also meets 4, but neither 0 and 2 nor validation 1.
    assert_ranks(ranks("test", "catalogue"), [1, 0], [1, 0])
    # Client 0, item 2 (1): 5 is level, 3 and 4 below. Client 1, item 1 (2): is first.
    assert_ranks(
        evaluator.ranks(score_fn, counts, "valid", "catalogue"), [0, 0], [1, 0]
    )


def assert_ranks(ranks, above, ties):
    np.testing.assert_array_equal(ranks, [above, ties])


@pytest.mark.parametrize("target", ["valid", "test"])
def test_a_constant_score_is_the_closed_form(split, target):
    evaluated = Evaluator(split, CANDIDATES)(*BASELINES["random"](Known(split)), target)
    closed = random_baseline(split, CANDIDATES, target)
    assert list(closed) == list(evaluated) == ["sampled", "catalogue"]
    for ranking, metrics in closed.items():
        assert evaluated[ranking] == pytest.approx(metrics, rel=1e-12)
    # Client 0 has 2 candidates, client 1 has 1: (1 / 3 + 1 / 2) / 2.
    one = random_baseline(split, CANDIDATES, target, ks=(1,))
    assert one["sampled"]["hit_rate@1"] == pytest.approx(5 / 12)
    # Six items less two training items, and less the validation item in a test.
    left = 3 if target == "test" else 4
    assert one["catalogue"]["hit_rate@1"] == pytest.approx(1 / left)


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_is_evaluated(split, name):
    latents = np.random.default_rng(0).normal(size=(6, 3))
    known = Known(split, latents, expected_negatives=np.arange(6.0))
    score_fn, arrays = BASELINES[name](known)
    assert BASELINES[name](known)[0] is score_fn  # or each call would trace again
    metrics = Evaluator(split, CANDIDATES)(score_fn, arrays, "test")
    for ranking in ("sampled", "catalogue"):
        assert all(0 <= value <= 1 for value in metrics[ranking].values())


def test_text_neighbours_by_hand(split):
    latents = np.array([[2, 0], [0, 3], [1, 1], [4, 0], [-1, -1], [-6, -3]], float)
    assert abs(latents.mean(axis=0)).max() == 0
    score_fn, unit_latents = text_neighbours(Known(split, latents))
    history = History(np.array([[0, 1, 0]]), np.array([[True, True, False]]))
    unit = latents / np.linalg.norm(latents, axis=1, keepdims=True)
    expected = unit @ (unit[0] + unit[1])
    every = score_fn(unit_latents, np.array([0]), history, None)
    np.testing.assert_allclose(every[0], expected, rtol=1e-5)
    some = score_fn(unit_latents, np.array([0]), history, np.array([[5, 2]]))
    np.testing.assert_allclose(some[0], expected[[5, 2]], rtol=1e-5)
    assert text_neighbours(Known(split)) is None


def test_log_odds_find_a_leak_and_nothing_else():
    """200 clients, each with a test item of its own: only a leak can tell it."""
    rng = np.random.default_rng(0)
    items = np.stack([rng.permutation(300)[:12] for _ in range(200)])
    split = Split(
        name="toy",
        num_items=300,
        train=Ragged.from_rows(np.sort(items[:, :10], axis=1)),
        valid=items[:, 10].astype(np.int32),
        test=items[:, 11].astype(np.int32),
    )
    popular = np.asarray(most_popular(Known(split))[1])
    without = fresh_negatives(300).expected(split)
    sound = np.asarray(log_odds(Known(split, expected_negatives=without))[1])
    assert np.corrcoef(popular, sound)[0, 1] > 0.95
    leaking = published_negatives(300, exclude_held_out=True).expected(split)
    held = np.bincount(np.r_[split.valid, split.test], minlength=300)
    assert np.corrcoef(without - leaking, held)[0, 1] > 0.99
    assert log_odds(Known(split)) is None


@pytest.mark.skipif(
    not (REAL_DATA / "ml-1m.zip").exists(), reason=f"no ml-1m.zip in {REAL_DATA}"
)
def test_movielens_1m():
    from fedpeft_jax.data import leave_one_out, load_dataset, sample_candidates

    dataset = load_dataset("ml-1m", REAL_DATA)
    split = leave_one_out(dataset)
    candidates = sample_candidates(dataset, split, 100, 0)
    evaluator = Evaluator(split, candidates)
    metrics = evaluator(*most_popular(Known(split)), "test")
    assert metrics["sampled"]["hit_rate@10"] == pytest.approx(0.455, abs=0.02)
    assert metrics["sampled"]["ndcg@10"] == pytest.approx(0.252, abs=0.02)
    chance = random_baseline(split, candidates)
    assert chance["sampled"]["hit_rate@10"] == pytest.approx(10 / 101)
    assert metrics["catalogue"]["ndcg@10"] > 3 * chance["catalogue"]["ndcg@10"]
