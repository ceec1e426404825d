"""Tests of splits.py: what is held out, and that nothing held out trains."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import (
    DataSettings,
    Raw,
    Split,
    build,
    generate_long_tailed,
    leave_one_out,
    make_split,
)
from tests.data.helpers import build_rows, make_dataset


def dataset(histories, num_items):
    """A data set with exactly these histories, of users 100, 101, ..."""
    return make_dataset(histories, num_items, first_user=100)


def train_of(split: Split, client: int) -> list[int]:
    return split.train.row(client).tolist()


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
        (split.train.offsets, np.int64),
        (split.counts, np.int64),
        (split.train.values, np.int32),
        (split.valid, np.int32),
        (split.test, np.int32),
        (split.evaluated, np.int32),
    ):
        assert array.dtype == dtype


def test_the_latest_by_time_are_held_out_not_the_last_in_the_file():
    rows = [(1, 7, 40), (1, 8, 10), (1, 9, 30), (1, 6, 20), (2, 5, 0)]
    data = build_rows(rows)
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
    data = build_rows(rows)
    assert leave_one_out(data).counts.tolist() == [2, 1]  # three items, so c is left
    named = dataclasses.replace(dataset([[0, 1]], 2), user_ids=np.array(["it's"]))
    with pytest.raises(InputError, match='user "it\'s" are the whole'):
        leave_one_out(named)


def test_held_out_items_leave_a_negative_when_all_are_seen():
    split = leave_one_out(dataset([[2, 0, 1]], 3))
    assert split.counts.tolist() == [1] and split.test.tolist() == [1]


def test_many_users():
    data = generate_long_tailed(0, num_users=100_000, num_items=50_000, mean_length=20)
    split = leave_one_out(data)
    assert split.counts.sum() == len(data.items.values) - 200_000
    assert (split.counts == data.items.counts - 2).all()
    last = data.items.offsets[1:] - 1
    assert (split.test == data.items.values[last]).all()
    assert (split.valid == data.items.values[last - 1]).all()


# Other orders, a moment in time, and no validation item


LOGS = st.lists(
    st.tuples(st.integers(0, 6), st.integers(0, 12), st.integers(0, 9)),
    min_size=8,
    max_size=80,
)


def built(rows):
    # With an item that no user has, no user has the whole catalogue.
    text = {item: "text" for item in range(14)}
    return build_rows(rows, text, catalogue="listed")


@settings(deadline=None, max_examples=150)
@given(LOGS, st.sampled_from(["time", "file", "random", "time_cut"]), st.integers(0, 1))
def test_nothing_is_held_out_and_trained_and_nobody_is_lost_in_silence(
    rows, kind, valid_items
):
    try:
        data = built(rows)
    except InputError:
        return  # nobody has three items
    wanted = DataSettings(split=kind, valid_items=valid_items, time_cut=0.7)
    try:
        kept, split = make_split(data, wanted)
    except InputError as error:
        assert "leaves no user a training item" in str(error)
        return
    lost = data.num_users - split.num_clients
    assert lost == len(data.user_ids) - len(kept.user_ids)
    said = [note for note in kept.notes if "without a training item" in note]
    assert said == ([f"left out {lost} users without a training item"] if lost else [])
    assert len(split.test) == len(split.valid) == split.num_clients == kept.num_users
    used = 0
    times = {}
    for user, item, moment in sorted(rows, key=lambda row: row[2]):
        times.setdefault((user, item), moment)
    for client in range(split.num_clients):
        items = kept.items.row(client).tolist()
        train = train_of(split, client)
        held = [i for i in (split.valid[client], split.test[client]) if i >= 0]
        assert train == sorted(train) and set(train) | set(held) <= set(items)
        assert not set(train) & set(held) and len(set(held)) == len(held)
        assert len(held) in ((0, 2) if valid_items else (0, 1))
        assert (split.valid[client] >= 0) == (bool(held) and bool(valid_items))
        used += len(train) + len(held)
        if kind != "time_cut":
            assert len(train) + len(held) == len(items)
        if kind == "time_cut" and held:
            user = int(kept.user_ids[client])
            when = lambda i, user=user: times[user, int(kept.item_ids[i])]  # noqa: E731
            assert max(map(when, train)) < min(map(when, held))
            ahead = [when(i) for i in items if i not in train]
            assert sorted(ahead)[: len(held)] == [when(i) for i in held]
    unused = len(kept.items.values) - used
    said = [note for note in kept.notes if "neither trained on" in note]
    assert len(said) == bool(unused) and all(str(unused) in note for note in said)


def test_a_time_cut_is_one_moment_for_all():
    rows = [(u, i, 10 * u + i) for u in range(5) for i in range(6)]
    data, split = make_split(built(rows), DataSettings(split="time_cut", time_cut=0.8))
    # 30 interactions, those of users 0 to 3 mostly before the last tenth.
    assert data.user_ids.tolist() == [0, 1, 2, 3]
    assert "left out 1 users without a training item" in data.notes
    assert split.evaluated.tolist() == []
    data, split = make_split(built(rows), DataSettings(split="time_cut", time_cut=0.5))
    assert data.user_ids[split.evaluated].tolist() == [2]
    [client] = split.evaluated
    assert (split.valid[client], split.test[client]) == (3, 4)


def test_file_order_is_the_order_of_rows():
    rows = [("u", 3, 50), ("u", 1, 70), ("u", 2, 60), ("u", 0, 10), ("u", 3, 40)]
    data = built(rows)
    _, split = make_split(data, DataSettings(split="file"))
    # Item 3 is kept with its earliest time, which is the last row.
    assert (split.valid[0], split.test[0]) == (0, 3)
    _, split = make_split(data, DataSettings(split="time"))
    assert (split.valid[0], split.test[0]) == (2, 1)
    _, split = make_split(data, DataSettings(split="file", valid_items=0))
    assert (split.valid[0], split.test[0]) == (-1, 3)
    assert train_of(split, 0) == [0, 1, 2]


def test_random_order_is_of_the_data_seed():
    rows = [(u, i, i) for u in range(40) for i in range(9)]
    tests = [
        make_split(built(rows), DataSettings(split="random", data_seed=seed))[1].test
        for seed in (0, 0, 1)
    ]
    assert (tests[0] == tests[1]).all() and (tests[0] != tests[2]).any()
    assert len(set(tests[0].tolist())) > 4


@pytest.mark.parametrize("kind", ["time", "time_cut"])
def test_without_times_there_is_no_last_item(kind):
    frame = pl.DataFrame({"user": [1, 1, 1], "item": [1, 2, 3]})
    data = build(Raw("log", frame))
    with pytest.raises(InputError, match="there are no times: set `time_column`"):
        make_split(data, DataSettings(split=kind))
    with pytest.raises(InputError, match="needs data that are already split"):
        make_split(data, DataSettings(split="given", dataset="table",
                                      test_interactions="x"))  # fmt: skip
    assert make_split(data, DataSettings(split="file"))[1].num_clients == 1


def test_file_order_needs_a_file():
    with pytest.raises(InputError, match="there is no file: use `split=time`"):
        make_split(generate_long_tailed(0, 9, 9), DataSettings(split="file"))


def test_one_moment_for_everything_leaves_nothing_before_it():
    rows = [(1, i, 5) for i in range(4)]
    with pytest.raises(
        InputError, match="`split=time_cut` leaves no user a training item"
    ):
        make_split(built(rows), DataSettings(split="time_cut"))


def test_ids_round_trip():
    rows = [("b", "x7", 1), ("b", "x10", 2), ("b", "é", 3), ("a", "x7", 4)]
    data = build_rows(rows)
    _, split = make_split(data, DataSettings(valid_items=0))
    named = {
        (data.user_ids[c], data.item_ids[i])
        for c in range(split.num_clients)
        for i in [*train_of(split, c), *([split.test[c]] if split.test[c] >= 0 else [])]
    }
    assert named == {(user, item) for user, item, _ in rows}
