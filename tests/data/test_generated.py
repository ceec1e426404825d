"""Tests of generated.py: the synthetic data set, and long-tailed data of any size."""

import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import (
    build,
    generate_long_tailed,
    leave_one_out,
    load_synthetic,
    synthetic_interactions,
)
from tests.data.helpers import assert_same


def assert_distinct(data):
    """No user has an item twice."""
    pairs = data.items.owners * data.num_items + data.items.values
    assert len(np.unique(pairs)) == len(pairs)


def test_size_and_shape_of_the_default():
    data = load_synthetic()
    lengths = data.items.counts
    assert (data.name, data.num_users, data.num_items) == ("synthetic", 1000, 600)
    assert data.notes == ()
    assert lengths.min() >= 5 and 35 < lengths.mean() < 45
    assert np.median(lengths) < 0.8 * lengths.mean()  # activity has a long tail
    popularity = np.sort(np.bincount(data.items.values, minlength=600))[::-1]
    assert popularity[:60].sum() > 0.25 * popularity.sum() and popularity[-1] > 0
    assert_distinct(data)


def test_it_is_built_from_the_interactions():
    assert_same(load_synthetic(2, 60, 40), build(synthetic_interactions(2, 60, 40)))


def test_fixed_by_the_seed():
    assert_same(load_synthetic(3, 60, 40), load_synthetic(3, 60, 40))
    first, other = (load_synthetic(seed, 60, 40).items.values for seed in (3, 4))
    assert not np.array_equal(first, other)
    assert_same(generate_long_tailed(0, 50, 90), generate_long_tailed(0, 50, 90))
    first, other = (generate_long_tailed(s, 50, 90).items.values for s in (0, 1))
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(("users", "items"), [(3, 200), (2500, 10), (1, 30)])
def test_every_user_and_item_is_there(users, items):
    data = load_synthetic(0, users, items)
    assert (data.num_users, data.num_items) == (users, items)
    assert np.array_equal(data.item_ids, np.arange(items))
    assert data.items.counts.min() >= 5
    assert len(data.item_text) == items


@pytest.mark.parametrize(
    ("users", "items", "mean"),
    [(1, 4, 1), (300, 5, 20), (400, 150, 100), (30, 4000, 2500)],
)
def test_long_tailed_histories(users, items, mean):
    data = generate_long_tailed(0, users, items, mean)
    lengths = data.items.counts
    assert (data.num_users, data.num_items) == (users, items)
    assert lengths.min() >= 3 and lengths.max() <= min(2000, items - 1)
    assert data.items.values.dtype == np.int32
    assert data.items.offsets.dtype == np.int64
    assert data.items.values.min() >= 0 and data.items.values.max() < items
    assert_distinct(data)
    leave_one_out(data)


def test_long_tailed_with_many_users_and_items():
    data = generate_long_tailed(0, 100_000, 100_000, 20)
    values, offsets = data.items.values, data.items.offsets
    assert 19 < data.items.counts.mean() < 21
    popularity = np.sort(np.bincount(values, minlength=100_000))[::-1]
    assert popularity[:10_000].sum() > 0.4 * popularity.sum()
    assert popularity[:10].sum() < 0.1 * popularity.sum()
    # Neither ids nor time follow popularity.
    popular = np.bincount(values, minlength=100_000) >= popularity[1000]
    assert 300 < np.flatnonzero(popular).mean() * 1000 / 100_000 < 700
    first = popular[values[offsets[:-1]]].mean()
    last = popular[values[offsets[1:] - 1]].mean()
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
