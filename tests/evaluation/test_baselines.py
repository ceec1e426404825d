"""Baselines against hand-computed numbers, and against MovieLens-1M where it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.typing import History
from fedpeft_jax.data.splits import Split
from fedpeft_jax.evaluation.baselines import (
    BASELINES,
    Known,
    expected_negatives,
    log_odds,
    most_popular,
    random_baseline,
    text_neighbours,
)
from fedpeft_jax.evaluation.ranking import Evaluator
from fedpeft_jax.federated.sampler import make_client_data, make_store, read_history
from tests.helpers import REAL_DATA

DATA_DIR = REAL_DATA


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
    score_fn, params = most_popular(Known(split))
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
    evaluated = Evaluator(split, CANDIDATES)(*BASELINES["random"](Known(split)), target)
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
    known = Known(split, latents=np.random.default_rng(0).normal(size=(6, 3)))
    score_fn, params = BASELINES[name](known)
    assert BASELINES[name](known)[0] is score_fn  # or each call would trace again
    metrics = Evaluator(split, CANDIDATES)(score_fn, params, "test")
    for ranking in ("sampled", "full"):
        assert all(0 <= value <= 1 for value in metrics[ranking].values())


def test_text_neighbours_by_hand(split):
    latents = np.array([[2, 0], [0, 3], [1, 1], [4, 0], [-1, -1], [-6, -3]], float)
    assert abs(latents.mean(axis=0)).max() == 0
    score_fn, params = text_neighbours(Known(split, latents))
    history = History(np.array([[0, 1, 0]]), np.array([[True, True, False]]))
    unit = latents / np.linalg.norm(latents, axis=1, keepdims=True)
    expected = unit @ (unit[0] + unit[1])
    every = score_fn(params, np.array([0]), history, None)
    np.testing.assert_allclose(every[0], expected, rtol=1e-5)
    some = score_fn(params, np.array([0]), history, np.array([[5, 2]]))
    np.testing.assert_allclose(some[0], expected[[5, 2]], rtol=1e-5)
    assert text_neighbours(Known(split)) is None


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("slots", [0, 5])
def test_expected_negatives_are_the_mean_of_many_draws(split, exclude, slots):
    known = Known(split, num_negatives=2, num_slots=slots, exclude_held_out=exclude)
    store = make_store(split, exclude_held_out=exclude)

    @jax.jit
    def draw(key, client):
        history = read_history(store, client, capacity=3, num_items=6)
        data = make_client_data(
            key, history, num_items=6, num_negatives=2, num_slots=slots
        )
        ids = data.item_ids[data.negatives]
        return jnp.zeros(7).at[jnp.where(data.mask[:, None], ids, 6)].add(1)[:6]

    keys = jax.random.split(jax.random.key(0), (3, 3000))
    clients = jnp.broadcast_to(jnp.arange(3)[:, None], keys.shape)
    counts = jax.vmap(jax.vmap(draw))(keys, clients).mean(axis=1).sum(axis=0)
    np.testing.assert_allclose(counts, expected_negatives(known), atol=0.1)


def test_log_odds_find_a_leak_and_nothing_else():
    """200 clients, each with a test item of its own: only a leak can tell it."""
    rng = np.random.default_rng(0)
    items = np.stack([rng.permutation(300)[:12] for _ in range(200)])
    split = Split(
        name="toy",
        num_items=300,
        offsets=np.arange(201) * 10,
        train=np.sort(items[:, :10], axis=1).ravel().astype(np.int32),
        valid=items[:, 10].astype(np.int32),
        test=items[:, 11].astype(np.int32),
    )
    popular = np.asarray(most_popular(Known(split))[1])
    sound = np.asarray(log_odds(Known(split))[1])
    assert np.corrcoef(popular, sound)[0, 1] > 0.95
    leaking = expected_negatives(Known(split, exclude_held_out=True))
    without = expected_negatives(Known(split))
    held = np.bincount(np.r_[split.valid, split.test], minlength=300)
    assert np.corrcoef(without - leaking, held)[0, 1] > 0.99


@pytest.mark.skipif(
    not (DATA_DIR / "ml-1m.zip").exists(), reason=f"no ml-1m.zip in {DATA_DIR}"
)
def test_movielens_1m():
    from fedpeft_jax.data import leave_one_out, load_dataset, sample_candidates

    dataset = load_dataset("ml-1m", DATA_DIR)
    split = leave_one_out(dataset)
    candidates = sample_candidates(dataset, split, 100, 0)
    evaluator = Evaluator(split, candidates)
    metrics = evaluator(*most_popular(Known(split)), "test")
    assert metrics["sampled"]["hit_rate@10"] == pytest.approx(0.455, abs=0.02)
    assert metrics["sampled"]["ndcg@10"] == pytest.approx(0.252, abs=0.02)
    chance = random_baseline(split, candidates)
    assert chance["sampled"]["hit_rate@10"] == pytest.approx(10 / 101)
    assert metrics["full"]["ndcg@10"] > 3 * chance["full"]["ndcg@10"]
