"""Metrics of several held-out items against every order of small ties, and by hand."""

import itertools
import math

import ir_measures
import numpy as np
import pytest

from fedpeft_jax.evaluation import metrics, several
from fedpeft_jax.evaluation.ranks import JointRanks, Ranks, summarize_ranks


def ranks_of(scores, held):
    """Above and ties of each held-out item, the other held-out items included."""
    scores, own = np.asarray(scores), np.asarray(scores)[:held, None]
    return (scores > own).sum(axis=1), (scores == own).sum(axis=1) - 1


def brute_force(scores, held, k):
    """Means over all orders of the list; the first `held` items are the targets."""
    ideal = sum(1 / math.log2(p + 2) for p in range(min(k, held)))
    sums, lists = np.zeros(4), 0
    for order in itertools.permutations(range(len(scores))):
        if any(scores[a] < scores[b] for a, b in itertools.pairwise(order)):
            continue
        places = [place for place, item in enumerate(order) if item < held]
        hits = [place for place in places if place < k]
        gain = sum(1 / math.log2(place + 2) for place in hits)
        sums += [bool(hits), len(hits) / held, gain / ideal, 1 / (places[0] + 1)]
        lists += 1
    return sums / lists


CASES = [
    ([1, 1], 2),
    ([3, 3, 1, 3, 2, 2, 1], 3),  # two of the targets tie with each other and another
    ([1, 1, 1, 1, 1, 1], 4),  # everything ties
    ([0, 0, 5, 4, 4, 0, 0], 2),  # the best group comes late
    ([2, 7, 7, 2, 2, 7], 3),
    ([4, 3, 2, 1, 0], 5),  # only targets
    ([1, 1, 2, 0, 1], 1),
]


@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_every_order_of_the_list(k):
    expected = np.array([brute_force(scores, held, k) for scores, held in CASES])
    pairs = [ranks_of(scores, held) for scores, held in CASES]
    above, ties = (np.concatenate(part) for part in zip(*pairs, strict=True))
    counts = np.array([held for _, held in CASES])
    found = [
        several.hit_rate(above, ties, counts, k),
        several.recall(above, ties, counts, k),
        several.ndcg(above, ties, counts, k),
        several.mrr(above, ties, counts),
    ]
    np.testing.assert_allclose(found, expected.T, rtol=1e-12, atol=1e-15)


def test_agrees_with_ir_measures_where_nothing_is_tied():
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 30, 50)
    qrels, run, parts = [], [], []
    for user, held in enumerate(counts):
        scores = rng.permutation(60).astype(float)
        parts.append(ranks_of(scores, held))
        qrels += [ir_measures.Qrel(f"u{user}", f"i{item}", 1) for item in range(held)]
        run += [
            ir_measures.ScoredDoc(f"u{user}", f"i{item}", score)
            for item, score in enumerate(scores)
        ]
    above, ties = (np.concatenate(part) for part in zip(*parts, strict=True))
    ours = {ir_measures.RR: several.mrr(above, ties, counts)}
    for k in (1, 5, 20):
        ours[ir_measures.Success @ k] = several.hit_rate(above, ties, counts, k)
        ours[ir_measures.R @ k] = several.recall(above, ties, counts, k)
        ours[ir_measures.nDCG @ k] = several.ndcg(above, ties, counts, k)
    values = {
        (str(metric.measure), int(metric.query_id[1:])): metric.value
        for metric in ir_measures.iter_calc(ours, qrels, run)
    }
    for measure, found in ours.items():
        expected = [values[str(measure), user] for user in range(len(counts))]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_one_target_each_has_the_bits_of_the_metrics_of_one():
    rng = np.random.default_rng(0)
    above, ties = rng.integers(0, 50, 300), rng.integers(0, 20, 300)
    ones = np.ones(300, np.int64)
    for k in (1, 5, 10, 20):
        hits = metrics.hit_rate(above, ties, k)
        np.testing.assert_array_equal(several.hit_rate(above, ties, ones, k), hits)
        np.testing.assert_array_equal(several.recall(above, ties, ones, k), hits)
        expected = metrics.ndcg(above, ties, k)
        np.testing.assert_array_equal(several.ndcg(above, ties, ones, k), expected)
    expected = metrics.mrr(above, ties)
    np.testing.assert_array_equal(several.mrr(above, ties, ones), expected)


def test_a_large_group_is_a_random_order():
    """41,000 tied items, 7 of them targets: against draws, and without overflow."""
    rng = np.random.default_rng(0)
    above, ties = np.full(7, 3), np.full(7, 40_999)
    first = np.array([rng.choice(41_000, 7, replace=False).min() for _ in range(4000)])
    expected = (1 / (3 + first + 1)).mean()
    found = several.mrr(above, ties, np.array([7]))[0]
    error = (1 / (3 + first + 1)).std() / np.sqrt(4000)
    assert abs(found - expected) < 4 * error
    hit = several.hit_rate(above, ties, np.array([7]), 20)[0]
    assert hit == pytest.approx(1 - math.prod(1 - 7 / (41_000 - i) for i in range(17)))


def test_scores_that_are_not_numbers_are_last():
    # Both targets are NaN: each is below all others, the other target included.
    above, ties = np.array([9, 9]), np.array([0, 0])
    found = several.summarize(above, ties, np.array([2]), ks=(5, 20))
    assert found["hit_rate@5"] == found["recall@5"] == 0.0
    assert all(0 <= value <= 1 for value in found.values())


def test_the_names_and_the_mean():
    ranks = JointRanks(np.array([0, 5, 30]), np.array([0, 0, 0]), np.array([2, 1]))
    found = summarize_ranks(ranks, ks=(1, 10))
    assert list(found) == [
        "hit_rate@1", "recall@1", "ndcg@1", "hit_rate@10", "recall@10", "ndcg@10",
        "mrr",
    ]  # fmt: skip
    assert all(type(value) is float for value in found.values())
    assert (found["hit_rate@1"], found["recall@1"], found["ndcg@1"]) == (0.5, 0.25, 0.5)
    assert (found["hit_rate@10"], found["recall@10"]) == (0.5, 0.5)
    ideal = 1 + 1 / math.log2(3)
    assert found["ndcg@10"] == pytest.approx((1 + 1 / math.log2(7)) / ideal / 2)
    assert found["mrr"] == pytest.approx((1 + 1 / 31) / 2)
    assert "recall@10" not in summarize_ranks(Ranks(np.array([0]), np.array([0])))
    with pytest.raises(ValueError, match="no client"):
        summarize_ranks(JointRanks(*np.zeros((3, 0), np.int64)))


def test_rows_keep_the_targets_of_their_clients():
    ranks = JointRanks(np.array([0, 5, 30, 2]), np.arange(4), np.array([2, 1, 1]))
    kept = ranks.rows(np.array([True, False, True]))
    assert [part.tolist() for part in kept] == [[0, 5, 2], [0, 1, 3], [2, 1]]
    np.testing.assert_array_equal(kept.metric("hit_rate", 1), [1.0, 0.0])
