"""Tests of data/candidates.py: unseen, distinct, uniform, and fixed by the seed."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import candidates as candidates_module
from fedpeft_jax.data.candidates import sample_candidates
from fedpeft_jax.data.dataset import Dataset
from fedpeft_jax.data.readers.synthetic import generate_long_tailed
from fedpeft_jax.data.splits import leave_one_out


def dataset(histories: list[list[int]], num_items: int) -> Dataset:
    """A data set with exactly these histories."""
    return Dataset(
        name="made",
        user_ids=np.arange(len(histories)),
        item_ids=np.arange(num_items),
        offsets=np.cumsum([0] + [len(items) for items in histories]),
        items=np.array([i for items in histories for i in items], np.int32),
        item_text=None,
    )


@st.composite
def made_datasets(draw):
    num_items = draw(st.integers(4, 25))
    one = st.lists(st.integers(0, num_items - 1), unique=True)
    short = st.lists(st.integers(0, num_items - 1), unique=True, max_size=2)
    lists = draw(st.lists(st.one_of(one, short), min_size=1, max_size=10))
    return lists, num_items


@settings(deadline=None, max_examples=150)
@given(made_datasets(), st.integers(1, 30), st.integers(0, 5))
def test_unseen_distinct_and_padded(made, num, seed):
    lists, num_items = made
    data = dataset(lists, num_items)
    split = leave_one_out(data)
    rows = sample_candidates(data, split, num, seed)
    assert rows.shape == (len(split.evaluated), num) and rows.dtype == np.int32
    for client, row in zip(split.evaluated, rows.tolist(), strict=True):
        unseen = set(range(num_items)) - set(lists[client])
        drawn = [item for item in row if item != -1]
        assert row == drawn + [-1] * (num - len(drawn))
        assert len(drawn) == min(num, len(unseen))
        assert len(set(drawn)) == len(drawn) and set(drawn) <= unseen


def test_all_unseen_items_where_there_are_too_few():
    data = dataset([[5, 0, 3], [0, 1, 2, 3, 4, 5], [1, 2]], 6)
    rows = sample_candidates(data, leave_one_out(data), num=4)
    assert rows.tolist() == [[1, 2, 4, -1], [-1] * 4]


@pytest.mark.parametrize("num", [1, 2, 5, 6])
def test_uniform(num):
    # Every user has the same gaps at the ends and in the middle of her history.
    history = [1, 2, 6, 9, 4]
    users = 20_000
    data = dataset([history] * users, 12)
    rows = sample_candidates(data, leave_one_out(data), num, seed=num)
    unseen = np.setdiff1d(np.arange(12), history)
    counts = np.bincount(rows.ravel(), minlength=12)
    assert counts.sum() == users * num == counts[unseen].sum()
    assert _p_value(counts[unseen], num, len(unseen)) > 1e-3
    if num == 2:  # pairs too, not only single items
        pairs = np.unique(rows, axis=0, return_counts=True)[1]
        assert len(pairs) == 21 and stats.chisquare(pairs).pvalue > 1e-3


def _p_value(counts: np.ndarray, num: int, size: int) -> float:
    # Without replacement each count varies less, by (size - num) / (size - 1).
    statistic = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    scaled = statistic * (size - 1) / (size - num)
    return float(stats.chi2.sf(scaled, size - 1))


def test_users_draw_apart():
    data = dataset([[0, 1, 2]] * 50, 1000)
    rows = sample_candidates(data, leave_one_out(data), num=10)
    assert len(np.unique(rows, axis=0)) == 50


def test_fixed_by_the_seed():
    data = generate_long_tailed(0, num_users=200, num_items=400)
    split = leave_one_out(data)
    first = sample_candidates(data, split, num=20, seed=1)
    assert (first == sample_candidates(data, split, num=20, seed=1)).all()
    assert (first != sample_candidates(data, split, num=20, seed=2)).any()


def test_more_users_than_a_block(monkeypatch):
    monkeypatch.setattr(candidates_module, "_BLOCK", 7)
    data = generate_long_tailed(0, num_users=100, num_items=60)
    split = leave_one_out(data)
    rows = sample_candidates(data, split, num=10)
    assert (rows >= -1).all() and (rows < 60).all()
    for client, row in zip(split.evaluated, rows, strict=True):
        history = data.items[data.offsets[client] : data.offsets[client + 1]]
        drawn = row[row >= 0]
        assert len(drawn) == min(10, 60 - len(history))
        assert not set(drawn) & set(history)


def test_nobody_is_evaluated():
    data = dataset([[0, 1], [2]], 5)
    assert sample_candidates(data, leave_one_out(data), num=3).shape == (0, 3)


def test_no_candidates_asked_for():
    data = dataset([[0, 1, 2]], 5)
    with pytest.raises(InputError, match="at least 1 a user, got 0"):
        sample_candidates(data, leave_one_out(data), num=0)


def test_memory_does_not_grow_with_users_times_items():
    data = generate_long_tailed(0, num_users=5000, num_items=200_000)
    split = leave_one_out(data)
    tracemalloc.start()
    sample_candidates(data, split, num=50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6  # users x items would be 1e9, even in single bits over 1e8


# By popularity, and from some items only


@settings(deadline=None, max_examples=100)
@given(made_datasets(), st.integers(1, 12), st.integers(0, 5))
def test_popular_candidates_are_unseen_distinct_and_as_many_as_there_are(
    made, num, seed
):
    lists, num_items = made
    data = dataset(lists, num_items)
    split = leave_one_out(data)
    popular = set(np.unique(split.train).tolist())
    rows = sample_candidates(data, split, num, seed, kind="popularity")
    assert rows.shape == (len(split.evaluated), num) and rows.dtype == np.int32
    for client, row in zip(split.evaluated, rows.tolist(), strict=True):
        possible = popular - set(lists[client])
        drawn = [item for item in row if item != -1]
        assert row == sorted(drawn) + [-1] * (num - len(drawn))
        assert len(set(drawn)) == len(drawn) == min(num, len(possible))
        assert set(drawn) <= possible


@pytest.mark.parametrize("draws", [0, 8])
def test_popular_candidates_go_by_their_counts(monkeypatch, draws):
    """One draw of two has a closed form; the fallback draws the same way."""
    monkeypatch.setattr(candidates_module, "_MOST_DRAWS", draws)
    lists = [[9, 8, 7]] + [[i, 9, 8] for i in (0, 0, 0, 1, 1, 2)]
    data = dataset(lists, 10)
    split = leave_one_out(data)
    odds = np.array([3, 2, 1]) / 6
    first = odds[:, None] * odds[None, :] / (1 - odds[:, None])
    np.fill_diagonal(first, 0)
    expected = first.sum(axis=0) + first.sum(axis=1)
    found = np.zeros(3)
    for seed in range(1500):
        row = sample_candidates(data, split, 2, seed, kind="popularity")[0]
        found[row] += 1
    assert stats.chisquare(found, 1500 * expected).pvalue > 1e-3


@settings(deadline=None, max_examples=60)
@given(made_datasets(), st.integers(1, 12), st.sampled_from(["uniform", "popularity"]))
def test_candidates_from_the_first_slots(made, slots, kind):
    lists, num_items = made
    data = dataset(lists, num_items)
    split = leave_one_out(data)
    if slots > num_items:
        with pytest.raises(InputError, match="more than the catalogue"):
            sample_candidates(data, split, 5, slots=slots, kind=kind)
        return
    rows = sample_candidates(data, split, 5, slots=slots, kind=kind)
    for client, row in zip(split.evaluated, rows.tolist(), strict=True):
        drawn = {item for item in row if item != -1}
        assert drawn <= set(range(slots)) - set(lists[client])
        if kind == "uniform":
            assert len(drawn) == min(5, len(set(range(slots)) - set(lists[client])))
