"""Tests of candidates.py: unseen, distinct, uniform or by popularity, and seeded."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import generate_long_tailed, leave_one_out, sample_candidates
from tests.data.helpers import make_dataset


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
    data = make_dataset(lists, num_items)
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
    data = make_dataset([[5, 0, 3], [0, 1, 2, 3, 4, 5], [1, 2]], 6)
    rows = sample_candidates(data, leave_one_out(data), num=4)
    assert rows.tolist() == [[1, 2, 4, -1], [-1] * 4]


@pytest.mark.parametrize("num", [1, 2, 5, 6])
def test_uniform(num):
    # Every user has the same gaps at the ends and in the middle of her history.
    history = [1, 2, 6, 9, 4]
    users = 20_000
    data = make_dataset([history] * users, 12)
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
    data = make_dataset([[0, 1, 2]] * 50, 1000)
    rows = sample_candidates(data, leave_one_out(data), num=10)
    assert len(np.unique(rows, axis=0)) == 50


def test_fixed_by_the_seed():
    data = generate_long_tailed(0, num_users=200, num_items=400)
    split = leave_one_out(data)
    first = sample_candidates(data, split, num=20, seed=1)
    assert (first == sample_candidates(data, split, num=20, seed=1)).all()
    assert (first != sample_candidates(data, split, num=20, seed=2)).any()


@pytest.mark.parametrize(("kind", "users"), [("uniform", 70_000), ("popularity", 9000)])
def test_more_users_than_are_drawn_at_once(kind, users):
    data = generate_long_tailed(0, users, num_items=40, mean_length=8)
    split = leave_one_out(data)
    assert len(split.evaluated) == users
    rows = sample_candidates(data, split, num=10, kind=kind)
    drawn = rows >= 0
    assert (rows < 40).all() and not (drawn[:, 1:] & ~drawn[:, :-1]).any()
    owners = np.nonzero(drawn)[0]
    pairs = np.concatenate(
        [data.items.owners * 40 + data.items.values, owners * 40 + rows[drawn]]
    )
    assert len(np.unique(pairs)) == len(pairs)  # distinct, and unseen
    # Every item trains somewhere, so every unseen item is possible.
    assert (np.bincount(split.train.values, minlength=40) > 0).all()
    assert (drawn.sum(axis=1) == np.minimum(10, 40 - data.items.counts)).all()


def test_nobody_is_evaluated():
    data = make_dataset([[0, 1], [2]], 5)
    assert sample_candidates(data, leave_one_out(data), num=3).shape == (0, 3)


def test_at_least_one_candidate_per_user():
    data = make_dataset([[0, 1, 2]], 5)
    with pytest.raises(InputError, match="`num_candidates=0` must be at least 1"):
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
    data = make_dataset(lists, num_items)
    split = leave_one_out(data)
    popular = set(np.unique(split.train.values).tolist())
    rows = sample_candidates(data, split, num, seed, kind="popularity")
    assert rows.shape == (len(split.evaluated), num) and rows.dtype == np.int32
    for client, row in zip(split.evaluated, rows.tolist(), strict=True):
        possible = popular - set(lists[client])
        drawn = [item for item in row if item != -1]
        assert row == sorted(drawn) + [-1] * (num - len(drawn))
        assert len(set(drawn)) == len(drawn) == min(num, len(possible))
        assert set(drawn) <= possible


@pytest.mark.parametrize("seen", [0, 100_000])
def test_popular_candidates_go_by_their_counts(seen):
    """One draw of two has a closed form.

    The more often the item that all of them have seen trains, the less often an unseen
    item is drawn, until the sampler draws all of a user's items at once.
    """
    evaluated, scale = 1500, 30 if seen else 3000
    # A user with one item trains only.
    lists = [[9, 8, 7]] * evaluated + [[9]] * seen
    lists += [[0]] * (3 * scale) + [[1]] * (2 * scale) + [[2]] * scale
    data = make_dataset(lists, 10)
    rows = sample_candidates(data, leave_one_out(data), 2, kind="popularity")
    assert rows.shape == (evaluated, 2)
    odds = np.array([3, 2, 1]) / 6
    first = odds[:, None] * odds[None, :] / (1 - odds[:, None])
    np.fill_diagonal(first, 0)
    expected = first.sum(axis=0) + first.sum(axis=1)
    found = np.bincount(rows.ravel(), minlength=3)
    assert stats.chisquare(found, evaluated * expected).pvalue > 1e-3


@settings(deadline=None, max_examples=60)
@given(made_datasets(), st.integers(1, 12), st.sampled_from(["uniform", "popularity"]))
def test_candidates_from_the_first_slots(made, slots, kind):
    lists, num_items = made
    data = make_dataset(lists, num_items)
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
