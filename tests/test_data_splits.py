"""Tests of data/splits.py: what is held out, and that nothing held out trains."""

import time

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft_jax.data.dataset import Dataset, build_dataset
from fedpeft_jax.data.splits import Split, leave_one_out, sort_within
from fedpeft_jax.data.synthetic import generate_long_tailed
from fedpeft_jax.errors import InputError


def dataset(histories: list[list[int]], num_items: int) -> Dataset:
    """A data set with exactly these histories."""
    return Dataset(
        name="made",
        user_ids=np.arange(len(histories)) + 100,
        item_ids=np.arange(num_items),
        offsets=np.cumsum([0] + [len(items) for items in histories]),
        items=np.array([i for items in histories for i in items], np.int32),
        item_text=None,
    )


def train_of(split: Split, client: int) -> list[int]:
    return split.train[split.offsets[client] : split.offsets[client + 1]].tolist()


@st.composite
def histories(draw):
    """(histories of distinct items, number of items); some users may be empty."""
    num_items = draw(st.integers(4, 30))
    one = st.lists(st.integers(0, num_items - 1), unique=True, max_size=num_items - 1)
    return draw(st.lists(one, min_size=1, max_size=12)), num_items


def test_by_hand():
    split = leave_one_out(dataset([[4, 0, 3, 2], [1, 0], [5, 4, 3], [2]], 6))
    assert split.name == "time"
    assert (split.num_items, split.num_clients) == (6, 4)
    assert [train_of(split, client) for client in range(4)] == [
        [0, 4],
        [0, 1],
        [5],
        [2],
    ]
    assert split.valid.tolist() == [3, -1, 4, -1]
    assert split.test.tolist() == [2, -1, 3, -1]
    assert split.counts.tolist() == [2, 2, 1, 1]
    assert split.evaluated.tolist() == [0, 2]
    for array, dtype in (
        (split.offsets, np.int64),
        (split.counts, np.int64),
        (split.train, np.int32),
        (split.valid, np.int32),
        (split.test, np.int32),
        (split.evaluated, np.int32),
    ):
        assert array.dtype == dtype


def test_the_latest_by_time_are_held_out_not_the_last_in_the_file():
    rows = [(1, 7, 40), (1, 8, 10), (1, 9, 30), (1, 6, 20), (2, 5, 0)]
    data = build_dataset(
        "tiny", pl.DataFrame(rows, ["user", "item", "time"], orient="row")
    )
    split = leave_one_out(data)
    assert data.item_ids[split.test[0]] == 7
    assert data.item_ids[split.valid[0]] == 9
    assert data.item_ids[train_of(split, 0)].tolist() == [6, 8]


@settings(deadline=None, max_examples=100)
@given(histories())
def test_every_item_is_in_exactly_one_part(made):
    lists, num_items = made
    split = leave_one_out(dataset(lists, num_items))
    assert split.num_clients == len(lists)
    for client, items in enumerate(lists):
        train = train_of(split, client)
        held_out = [split.valid[client], split.test[client]]
        assert train == sorted(set(train))
        if len(items) < 3:
            assert held_out == [-1, -1] and client not in split.evaluated
            assert train == sorted(items)
        else:
            assert held_out == items[-2:] and client in split.evaluated
            assert train == sorted(items[:-2])
            assert not set(held_out) & set(train)


@pytest.mark.parametrize("items", [[0, 1], [1]])
def test_whole_catalogue_in_training_is_refused(items):
    num_items = len(items)
    data = dataset([[0], items], num_items) if num_items > 1 else dataset([[], [0]], 1)
    with pytest.raises(InputError, match=r"made: .* user 101 are the whole catalogue"):
        leave_one_out(data)


def test_original_name_of_the_user_without_negatives():
    rows = [("bob", "a", 1), ("bob", "b", 2), ("bob", "c", 3)]
    rows += [("al", "a", 1), ("al", "b", 2)]
    data = build_dataset(
        "tiny", pl.DataFrame(rows, ["user", "item", "time"], orient="row")
    )
    assert leave_one_out(data).counts.tolist() == [2, 1]  # three items, so c is left
    two = dataset([[0, 1]], 2)
    named = Dataset("t", np.array(["it's"]), two.item_ids, two.offsets, two.items, None)
    with pytest.raises(InputError, match='user "it\'s" are the whole'):
        leave_one_out(named)


def test_held_out_items_leave_a_negative_when_all_are_seen():
    split = leave_one_out(dataset([[2, 0, 1]], 3))
    assert split.counts.tolist() == [1] and split.test.tolist() == [1]


def test_sort_within_keeps_users_apart():
    counts = np.array([3, 0, 2])
    items = np.array([9, 0, 5, 8, 1])
    assert sort_within(counts, items, 10).tolist() == [0, 5, 9, 1, 8]


def test_scale():
    data = generate_long_tailed(0, num_users=100_000, num_items=50_000, mean_length=20)
    start = time.perf_counter()
    split = leave_one_out(data)
    assert time.perf_counter() - start < 2  # 0.06 s; a loop over users takes far longer
    assert split.counts.sum() == len(data.items) - 200_000
