"""Metrics against hand tables, every order of small ties, and a ranking library."""

import itertools
import math
from fractions import Fraction

import ir_measures
import numpy as np
import pytest

from fedpeft_jax.evaluation import metrics

SMALL = [(above, ties) for above in range(5) for ties in range(5)]


@pytest.mark.parametrize(
    ("above", "ties", "expected"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (2, 0, 0.0),
        (0, 1, 1.0),
        (0, 2, 2 / 3),
        (1, 1, 1 / 2),
        (1, 3, 1 / 4),
        (2, 9, 0.0),
        (0, 99, 2 / 100),
    ],
)
def test_hit_rate_at_2_by_hand(above, ties, expected):
    np.testing.assert_allclose(metrics.hit_rate([above], [ties], 2), [expected])


@pytest.mark.parametrize(
    ("above", "ties", "expected"),
    [
        (0, 0, 1.0),
        (1, 0, 0.6309297535714575),  # 1 / log2(3)
        (2, 0, 0.5),
        (3, 0, 0.0),
        (0, 2, (1 + 0.6309297535714575 + 0.5) / 3),
        (2, 4, 0.5 / 5),
        (1, 9, (0.6309297535714575 + 0.5) / 10),
    ],
)
def test_ndcg_at_3_by_hand(above, ties, expected):
    np.testing.assert_allclose(metrics.ndcg([above], [ties], 3), [expected], rtol=1e-14)


@pytest.mark.parametrize(
    ("above", "ties", "expected"),
    [
        (0, 0, Fraction(1)),
        (3, 0, Fraction(1, 4)),
        (0, 1, Fraction(3, 4)),
        (0, 2, Fraction(11, 18)),
        (2, 1, Fraction(7, 24)),
    ],
)
def test_mrr_by_hand(above, ties, expected):
    found = metrics.mrr([above], [ties])
    np.testing.assert_allclose(found, [float(expected)], rtol=1e-14)


@pytest.mark.parametrize("k", [1, 2, 3, 7, 20])
def test_every_order_of_the_ties(k):
    for above, ties in SMALL:
        # Item 0 is the target; position in the list = above + place among the tied.
        places = [
            above + order.index(0) for order in itertools.permutations(range(ties + 1))
        ]
        hits = [place < k for place in places]
        gains = [1 / math.log2(p + 2) if p < k else 0.0 for p in places]
        inverse = [1 / (p + 1) for p in places]
        pair = [above], [ties]
        np.testing.assert_allclose(metrics.hit_rate(*pair, k), [np.mean(hits)])
        np.testing.assert_allclose(metrics.ndcg(*pair, k), [np.mean(gains)], atol=1e-15)
        np.testing.assert_allclose(metrics.mrr(*pair), [np.mean(inverse)])


def test_agrees_with_ir_measures_where_nothing_is_tied():
    rng = np.random.default_rng(0)
    num_users, num_items = 200, 50
    scores = np.stack([rng.permutation(num_items) for _ in range(num_users)])
    targets = rng.integers(num_items, size=num_users)
    above = (scores > scores[np.arange(num_users), targets][:, None]).sum(axis=1)
    ties = np.zeros_like(above)

    # One relevant document a query: its ideal gain is 1, nDCG is the bare discount.
    qrels = [
        ir_measures.Qrel(f"u{user}", f"i{item}", 1) for user, item in enumerate(targets)
    ]
    run = [
        ir_measures.ScoredDoc(f"u{user}", f"i{item}", float(scores[user, item]))
        for user in range(num_users)
        for item in range(num_items)
    ]
    ours = {ir_measures.RR: metrics.mrr(above, ties)}
    for k in (1, 5, 10, 20):
        ours[ir_measures.Success @ k] = metrics.hit_rate(above, ties, k)
        ours[ir_measures.nDCG @ k] = metrics.ndcg(above, ties, k)
    compared = 0
    for found in ir_measures.iter_calc(list(ours), qrels, run):
        expected = ours[found.measure][int(found.query_id[1:])]
        assert found.value == pytest.approx(expected, abs=1e-9), found
        compared += 1
    assert compared == len(ours) * num_users


def test_mrr_is_exact_in_large_catalogues():
    above = np.array([0, 1_000_000, 999_999, 123])
    ties = np.array([2_000_000, 0, 1, 50_000])
    expected = [
        math.fsum(1 / (p + 1) for p in range(a, a + t + 1)) / (t + 1)
        for a, t in zip(above.tolist(), ties.tolist(), strict=True)
    ]
    np.testing.assert_allclose(metrics.mrr(above, ties), expected, rtol=1e-8)


@pytest.mark.parametrize("num_candidates", [0, 3, 99, 3705])
def test_random_expectation_is_the_closed_form(num_candidates):
    found = metrics.random_expectation(num_candidates, ks=(1, 10))
    places = range(num_candidates + 1)
    assert found == pytest.approx({
        "hit_rate@1": 1 / len(places),
        "ndcg@1": 1 / len(places),
        "hit_rate@10": min(10 / len(places), 1),
        "ndcg@10": sum(1 / math.log2(p + 2) for p in places[:10]) / len(places),
        "mrr": sum(1 / (p + 1) for p in places) / len(places),
    })  # fmt: skip


def test_a_constant_score_is_worth_a_random_one():
    """Trap 10: counting only strictly higher items gave a constant HR@10 = 1."""
    rng = np.random.default_rng(0)
    constant = metrics.summarize(([0] * 10, [99] * 10))
    assert constant == pytest.approx(metrics.random_expectation(99), rel=1e-12)
    assert constant["hit_rate@10"] == pytest.approx(0.1)
    drawn = rng.integers(100, size=200_000)
    sampled = metrics.summarize((drawn, np.zeros_like(drawn)))
    assert sampled == pytest.approx(constant, abs=3e-3)


def test_random_expectation_averages_over_users():
    found = metrics.random_expectation(np.array([1, 3]), ks=(1,))
    assert found["hit_rate@1"] == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_summarize_names_and_means():
    found = metrics.summarize((np.array([0, 7]), np.array([0, 0])))
    assert list(found) == [
        "hit_rate@5", "ndcg@5", "hit_rate@10", "ndcg@10", "hit_rate@20", "ndcg@20",
        "mrr",
    ]  # fmt: skip
    assert all(type(value) is float for value in found.values())
    assert found["hit_rate@5"] == 0.5
    assert found["hit_rate@10"] == 1.0
    assert found["ndcg@10"] == pytest.approx((1 + 1 / math.log2(9)) / 2)
    assert found["mrr"] == pytest.approx((1 + 1 / 8) / 2)


def test_narrow_integers_do_not_overflow():
    above, ties = np.array([100], np.int8), np.array([100], np.int8)
    np.testing.assert_array_equal(metrics.ndcg(above, ties, 10), [0.0])
    wide = metrics.mrr(above.astype(int), ties.astype(int))
    np.testing.assert_array_equal(metrics.mrr(above, ties), wide)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.hit_rate([0], [0], 0), "k must be at least 1"),
        (lambda: metrics.ndcg([0], [0], -1), "k must be at least 1"),
        (lambda: metrics.hit_rate([-1], [0], 1), "above must hold integers"),
        (lambda: metrics.mrr([0], [-1]), "ties must hold integers"),
        (lambda: metrics.mrr([0.5], [0]), "above must hold integers"),
        (lambda: metrics.mrr([0, 1], [0]), "one count per client"),
        (lambda: metrics.summarize(([], [])), "no client"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
