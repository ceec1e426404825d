"""Baselines against hand-computed numbers, and against MovieLens-1M where it is."""

from pathlib import Path

import numpy as np
import pytest

from fedpeft_jax.baselines import BASELINES, most_popular, random_baseline
from fedpeft_jax.data.splits import Split
from fedpeft_jax.evaluation import Evaluator

DATA_DIR = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def split():
    """Training counts 3, 2, 1, 0, 0, 1; the last client trains only."""
    return Split(
        name="hand-made",
        num_items=6,
        offsets=np.array([0, 2, 4, 7], np.int64),
        train=np.array([0, 1, 0, 2, 0, 1, 5], np.int32),
        valid=np.array([2, 1, -1], np.int32),
        test=np.array([3, 5, -1], np.int32),
    )


CANDIDATES = np.array([[4, 5], [3, -1]], np.int32)


def test_most_popular_counts_training_items_only(split):
    score_fn, params = most_popular(split)
    np.testing.assert_array_equal(params, [3, 2, 1, 0, 0, 1])
    evaluator = Evaluator(split, CANDIDATES)
    # Client 0, item 3 (0): 4 is level, 5 above. Client 1, item 5 (1): 3 is below.
    assert_ranks(evaluator.ranks(score_fn, params, "test", "sampled"), [1, 0], [1, 0])
    # Full, beside them: client 1 also meets 4, but neither 0 and 2 nor validation 1.
    assert_ranks(evaluator.ranks(score_fn, params, "test", "full"), [1, 0], [1, 0])
    # Client 0, item 2 (1): 5 is level, 3 and 4 below. Client 1, item 1 (2): is first.
    assert_ranks(evaluator.ranks(score_fn, params, "valid", "full"), [0, 0], [1, 0])


def assert_ranks(ranks, above, ties):
    np.testing.assert_array_equal(ranks, [above, ties])


@pytest.mark.parametrize("target", ["valid", "test"])
def test_a_constant_score_is_the_closed_form(split, target):
    evaluated = Evaluator(split, CANDIDATES)(*BASELINES["random"](split), target)
    closed = random_baseline(split, CANDIDATES, target)
    assert list(closed) == list(evaluated) == ["sampled", "full"]
    for ranking, metrics in closed.items():
        assert evaluated[ranking] == pytest.approx(metrics, rel=1e-12)
    # Client 0 has 2 candidates, client 1 has 1: (1 / 3 + 1 / 2) / 2.
    one = random_baseline(split, CANDIDATES, target, ks=(1,))
    assert one["sampled"]["hit_rate@1"] == pytest.approx(5 / 12)
    # Six items less two training items, and less the validation item in a test.
    left = 3 if target == "test" else 4
    assert one["full"]["hit_rate@1"] == pytest.approx(1 / left)


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_is_evaluated(split, name):
    score_fn, params = BASELINES[name](split)
    assert BASELINES[name](split)[0] is score_fn  # or each call would trace again
    metrics = Evaluator(split, CANDIDATES)(score_fn, params, "test")
    for ranking in ("sampled", "full"):
        assert all(0 <= value <= 1 for value in metrics[ranking].values())


@pytest.mark.skipif(
    not (DATA_DIR / "ml-1m.zip").exists(), reason=f"no ml-1m.zip in {DATA_DIR}"
)
def test_movielens_1m():
    from fedpeft_jax.data import leave_one_out, load_dataset, sample_candidates

    dataset = load_dataset("ml-1m", DATA_DIR)
    split = leave_one_out(dataset)
    candidates = sample_candidates(dataset, split, 100, 0)
    evaluator = Evaluator(split, candidates)
    metrics = evaluator(*most_popular(split), "test")
    assert metrics["sampled"]["hit_rate@10"] == pytest.approx(0.455, abs=0.02)
    assert metrics["sampled"]["ndcg@10"] == pytest.approx(0.252, abs=0.02)
    chance = random_baseline(split, candidates)
    assert chance["sampled"]["hit_rate@10"] == pytest.approx(10 / 101)
    assert metrics["full"]["ndcg@10"] > 3 * chance["full"]["ndcg@10"]
