"""Tests of per_user.py by hand: the table, slices, and the test for leaks."""

import numpy as np
import pytest

from fedpeft_jax.core.ragged import Ragged
from fedpeft_jax.data import Dataset, Split
from fedpeft_jax.evaluation.per_user import (
    leak,
    paired_difference,
    per_user_table,
    slices,
)
from fedpeft_jax.evaluation.ranks import Ranks

# Clients 0 to 3 with 1, 1, 2 and 3 training items; client 3 trains only.
SPLIT = Split(
    name="toy",
    num_items=6,
    train=Ragged.from_rows([[0], [0], [0, 1], [0, 1, 2]]),
    valid=np.array([1, -1, 2, -1], np.int32),
    test=np.array([0, 1, 3, -1], np.int32),
)
DATA = Dataset(
    name="toy",
    user_ids=np.array(["a", "b", "c", "d"]),
    item_ids=np.arange(6) * 10,
    items=Ragged.from_rows([[0], [0], [0], [0]]),
    item_text=None,
)


def ranks(above, ties=None):
    ties = [0] * len(above) if ties is None else ties
    return Ranks(np.array(above), np.array(ties))


def both(one):
    return {"sampled": one, "catalogue": one}


def test_one_row_per_user_under_original_ids():
    results = {
        "model": {"valid": both(ranks([4, 5])), "test": both(ranks([1, 2, 3]))},
        "random": {"test": {"sampled": ranks([0, 0, 0], [9, 9, 8])}},
    }
    table = per_user_table(DATA, SPLIT, results, np.array([0, 2], np.int32))
    assert table["user"].to_list() == ["a", "b", "c"]
    assert table["train_items"].to_list() == [1, 1, 2]
    assert table["valid_item"].to_list() == [10, None, 20]
    assert table["test_item"].to_list() == [0, 10, 30]
    assert table["model_valid_sampled_above"].to_list() == [4, None, 5]
    assert table["model_test_full_above"].to_list() == [1, 2, 3]
    assert table["random_test_sampled_ties"].to_list() == [9, 9, 8]
    assert table.width == 4 + 8 + 2


def test_slices_are_thirds_with_their_own_means():
    lengths = np.array([2, 3, 4, 5, 6, 7])
    split = Split(
        name="toy",
        num_items=9,
        train=Ragged.from_rows([np.arange(n) for n in lengths]),
        valid=np.full(6, -1, np.int32),
        test=np.array([7, 8, 7, 8, 7, 8], np.int32),
    )
    found = slices(split, {"sampled": ranks([0, 50, 1, 50, 50, 50])})
    activity = found["user_activity"]
    assert [activity[part]["users"] for part in ("low", "middle", "high")] == [2, 2, 2]
    assert [activity[p]["sampled"]["hit_rate@10"] for p in activity] == [0.5, 0.5, 0]
    assert (activity["low"]["from"], activity["high"]["to"]) == (2, 7)
    ndcg = activity["middle"]["sampled"]["ndcg@10"]
    assert ndcg == pytest.approx(0.5 / np.log2(3))
    # Nobody trains on 7 or 8: all are alike.
    popularity = found["item_popularity"]
    assert list(popularity) == ["low"] and popularity["low"]["users"] == 6


def test_a_leak_is_a_paired_difference_beyond_three_standard_errors():
    rng = np.random.default_rng(0)
    above = rng.integers(0, 20, 400)
    same = {"test": {"sampled": ranks(above)}}
    better = {"test": {"sampled": ranks(np.maximum(above - 1, 0))}}
    luck = above + rng.choice([-1, 1], 400) * (above > 0)
    other = {"test": {"sampled": ranks(luck)}}
    assert leak({"most_popular": same, "log_odds": better})["leaks"]
    for harmless in (same, other):
        assert not leak({"most_popular": same, "log_odds": harmless})["leaks"]
    worse = leak({"most_popular": better, "log_odds": same})
    assert worse["difference"] < 0 and not worse["leaks"]
    assert leak({"most_popular": same}) is None
    alone = {"test": {"sampled": ranks([3])}}  # has no standard error
    assert leak({"most_popular": alone, "log_odds": alone}) is None


def test_the_standard_error_by_hand():
    result = leak(
        {
            "most_popular": {"test": {"sampled": ranks([0, 2])}},
            "log_odds": {"test": {"sampled": ranks([0, 0])}},
        }
    )
    assert result["difference"] == pytest.approx(0.25)
    assert result["standard_error"] == pytest.approx(0.25)
    assert not result["leaks"]


def test_a_paired_difference_by_hand():
    results = {
        "model": {"test": both(ranks([0, 9, 10, 2]))},
        "other": {"test": {"sampled": ranks([10, 9, 3, 50], [0, 1, 0, 0])}},
    }
    found = paired_difference(results, "model", "other", metric="hit_rate")
    # The clients' differences are 1, 1/2 (a tie for the last place), -1 and 1.
    assert found["difference"] == pytest.approx(0.375)
    spread = np.sqrt((0.625**2 + 0.125**2 + 1.375**2 + 0.625**2) / 3)
    assert found["standard_error"] == pytest.approx(spread / 2)
    reverse = paired_difference(results, "other", "model", metric="hit_rate")
    assert reverse["difference"] == -found["difference"]
    assert paired_difference(results, "model", "unknown") is None


def test_pairs_matter():
    """The same two sets of ranks differ surely, or not, by how they are paired."""
    above = np.arange(100) % 20
    one = {"test": {"sampled": ranks(above)}}
    paired = {"test": {"sampled": ranks(above + 1)}}
    mixed = {"test": {"sampled": ranks((above + 1)[::-1])}}
    sure, unsure = (
        paired_difference({"model": one, "other": other}, "model", "other")
        for other in (paired, mixed)
    )
    assert sure["difference"] == pytest.approx(unsure["difference"])
    assert sure["standard_error"] < unsure["standard_error"] / 3
