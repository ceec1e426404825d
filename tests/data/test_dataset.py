"""Tests of dataset.py: filters, numbering, repeated pairs, time order, item text."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.ragged import Ragged
from fedpeft_jax.data import DataSettings, Raw, build
from fedpeft_jax.data.dataset import keep_users
from tests.data.helpers import assert_same, build_rows, history


def frame(rows, **overrides):
    """Interactions from (user, item, time) rows."""
    return pl.DataFrame(
        rows, schema=["user", "item", "time"], orient="row"
    ).with_columns(**overrides)


ROWS = [(10, 5, 4), (9, 30, 1), (10, 30, 3), (9, 100, 0), (10, 100, 2), (10, 9, 1)]


def test_fields_by_hand():
    data = build(Raw("tiny", frame(ROWS)))
    assert data.name == "tiny"
    assert data.user_ids.tolist() == [9, 10] and data.user_ids.dtype == np.int64
    assert data.item_ids.tolist() == [5, 9, 30, 100]
    assert data.item_ids.dtype == np.int64
    assert isinstance(data.items, Ragged)
    assert data.items.offsets.tolist() == [0, 2, 6]
    assert data.items.offsets.dtype == np.int64
    assert data.items.values.tolist() == [3, 2, 1, 3, 2, 0]
    assert data.items.values.dtype == np.int32
    assert data.places.tolist() == [3, 1, 5, 4, 2, 0]
    assert data.times.tolist() == [0, 1, 1, 2, 3, 4]
    assert (data.num_users, data.num_items) == (2, 4)
    assert data.item_text is None and data.parts is None
    assert repr(data) == "Dataset('tiny': 2 users, 4 items, 6 interactions)"
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"


def test_repeated_pairs_keep_their_earliest_time():
    rows = [("u", "a", 5), ("u", "b", 3), ("u", "c", 4), ("u", "a", 1), ("u", "a", 9)]
    data = build_rows(rows)
    assert history(data, "u") == ["a", "b", "c"]
    assert "dropped 2 repeated pairs (kept the earliest)" in data.notes


def test_equal_times_keep_file_order():
    items = np.random.default_rng(0).permutation(200).tolist()
    rows = [(user, item, item // 50) for item in items for user in (1, 2)]
    data = build_rows(rows)
    expected = [i for time in range(4) for i in items if i // 50 == time]
    assert history(data, 1) == expected and history(data, 2) == expected
    assert data.notes == ()


def test_integers_in_strings_are_numbered_like_integers():
    as_strings = frame(
        ROWS, user=pl.col("user").cast(str), item=pl.col("item").cast(str)
    )
    for interactions in (frame(ROWS, item=pl.col("item").cast(pl.Int16)), as_strings):
        data = build(Raw("tiny", interactions, {"30": "thirty", "5": "five"}))
        assert data.item_ids.tolist() == [5, 9, 30, 100]
        assert data.item_ids.dtype == np.int64 and data.user_ids.dtype == np.int64
        assert history(data, 10) == [9, 100, 30, 5]
        assert data.item_text == ("five", "", "thirty", "")


@pytest.mark.parametrize(
    ("ids", "ordered"),
    [
        (["10", "9", "B2", "a"], ["10", "9", "B2", "a"]),
        (["é", "z", "Z", "10"], ["10", "Z", "z", "é"]),
        (["007", "7", "10"], ["007", "10", "7"]),  # two spellings are two items
        (["-3", "10", "2"], [-3, 2, 10]),
        (["99999999999999999999", "3", "20"], ["20", "3", "99999999999999999999"]),
    ],
)
def test_order_of_ids(ids, ordered):
    rows = [("u", item, time) for time, item in enumerate(ids)]
    data = build_rows(rows)
    assert data.item_ids.tolist() == ordered
    assert [str(i) for i in history(data, "u")] == ids


def test_users_and_items_are_ordered_apart():
    rows = [(user, item, 0) for user in ("10", "9") for item in ("a", "10", "9")]
    data = build_rows(rows)
    assert data.user_ids.tolist() == [9, 10]
    assert data.item_ids.tolist() == ["10", "9", "a"]


def test_text_is_aligned_and_unseen_items_are_left_out():
    listed = pl.DataFrame(
        {
            "item": [100, 7, 5, 30, 100, 8],
            "text": ["hundred", "seven", "  ", None, "again", None],
        }
    )
    data = build(Raw("tiny", frame(ROWS), listed, ("from the reader",)))
    assert data.item_text == ("", "", "", "hundred")
    assert data.notes == (
        "from the reader",
        "1 users have fewer than 3 distinct items (they train only)",
        "1 item texts are repeated (kept the first)",
        "left out 2 of 5 listed items (no interaction)",
        "3 of 4 items have no text",
    )


def test_mapping_by_integers_and_no_text_at_all():
    assert build_rows(ROWS, {9: "n", 5: None}).item_text == ("", "n", "", "")
    assert build_rows(ROWS, {9: "", 1234: "other"}).item_text is None
    assert build_rows(ROWS, {}).item_text is None


@pytest.mark.parametrize(
    ("interactions", "message"),
    [
        (frame(ROWS).drop("item"), "no column 'item'.*found: user, time"),
        (frame(ROWS).clear(), "no interactions"),
        (frame([*ROWS[:2], (None, 1, 2)]), "no user id.*interaction 3"),
        (frame([("u", "a", 1), ("u", "", 2)]), "no item id.*interaction 2"),
        (frame([("u", "a", 1.0), ("u", "b", float("nan"))]), "no time.*interaction 2"),
        (frame([("u", "a", None), ("u", "b", 1)]), "no time.*interaction 1"),
        (frame([("u", "a", "monday")]), "not a number.*interaction 1: 'monday'"),
        (frame([("u", "a", [1])]), "no time order"),
        (frame([("u", "a", 3), ("u", "b", -3)]), "negative.*interaction 2: -3"),
        (frame([("u", 1.5, 1)]), "no whole number as item id"),
        (frame([("u", [1], 1)]), "item ids are List"),
        (frame([(1, 1, 1), (1, 2, 2), (2, 1, 1), (1, 2, 3)]), "none of the 2 users"),
    ],
)
def test_bad_interactions(interactions, message):
    with pytest.raises(InputError, match=f"^bad: .*{message}") as caught:
        build(Raw("bad", interactions))
    assert "\n" not in str(caught.value)


def test_text_without_its_columns():
    with pytest.raises(InputError, match="no column 'text'"):
        build_rows(ROWS, pl.DataFrame({"item": [1]}))


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(-3, 3), st.integers(0, 12), st.integers(0, 5)),
        min_size=1,
        max_size=60,
    )
)
def test_against_a_loop(rows):
    expected: dict[int, dict[int, int]] = {}
    for user, item, time in sorted(rows, key=lambda row: row[2]):  # a stable sort
        expected.setdefault(user, {}).setdefault(item, time)
    if max(map(len, expected.values())) < 3:
        with pytest.raises(InputError):
            build_rows(rows)
        return
    data = build_rows(rows)
    assert data.user_ids.tolist() == sorted(expected)
    assert data.item_ids.tolist() == sorted({item for _, item, _ in rows})
    for user, picked in expected.items():
        assert history(data, user) == list(picked)


def test_a_repeated_pair_keeps_its_latest_time_if_asked():
    rows = [("u", 1, 10), ("u", 2, 20), ("u", 1, 30), ("u", 3, 25)]
    early, late = (
        build_rows(rows, repeated_pairs=which) for which in ("earliest", "latest")
    )
    assert history(early, "u") == [1, 2, 3] and history(late, "u") == [2, 3, 1]
    assert late.notes == ("dropped 1 repeated pairs (kept the latest)",)
    assert late.times.tolist() == [20, 25, 30] and late.places.tolist() == [1, 3, 2]


LOG = [(1, 7, 4), (1, 8, 3), (1, 9, 2), (1, 6, 1), (2, 7, 1), (2, 8, 2), (3, 5, 1)]


def test_filters_come_before_numbering():
    ratings = pl.Series([5.0, 5, 5, 1, 5, 5, 5])
    raw = Raw("toy", frame(LOG, rating=ratings), {6: "six", 8: "eight"}, ("first",))
    data = build(raw, DataSettings(min_rating=2, min_interactions=2))
    assert data.user_ids.tolist() == [1, 2] and data.item_ids.tolist() == [7, 8, 9]
    assert history(data, 1) == [9, 8, 7] and history(data, 2) == [7, 8]
    assert data.places.tolist() == [2, 1, 0, 3, 4]
    assert data.notes == (
        "first",
        "min_rating=2 dropped 1 of 7 interactions, and with them 0 of 3 users",
        "min_interactions=2 dropped 1 of 6 interactions, and with them 1 of 3 users",
        "1 users have fewer than 3 distinct items (they train only)",
        "left out 1 of 2 listed items (no interaction)",
        "2 of 3 items have no text",
    )


def test_without_settings_the_defaults_are_used():
    raw = Raw("toy", frame(LOG))
    assert_same(build(raw), build(raw, DataSettings()))
    assert build(raw).user_ids.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("catalogue", "ids"),
    [
        ("interacted", [5, 6, 7, 8, 9]),
        ("listed", [3, 5, 6, 7, 8, 9]),
        ("slots", list(range(1, 10))),
    ],
)
def test_the_items_of_a_catalogue(catalogue, ids):
    data = build_rows(LOG, {3: "three", 9: "nine"}, catalogue=catalogue)
    assert data.item_ids.tolist() == ids
    assert history(data, 1) == [6, 9, 8, 7]
    texts = {3: "three", 9: "nine"}
    assert data.item_text == tuple(texts.get(item, "") for item in ids)


def test_slots_need_integers_from_1():
    rows = [("u", item, 0) for item in ("a", "b", "c")]
    with pytest.raises(InputError, match="use `catalogue=listed`"):
        build_rows(rows, catalogue="slots")


def test_keep_users_keeps_what_lies_beside_the_items():
    data = build_rows(LOG)
    kept = keep_users(data, np.array([True, False, True]), "left out one")
    assert kept.user_ids.tolist() == [1, 3]
    assert kept.item_ids is data.item_ids and kept.notes[-1] == "left out one"
    assert kept.items.offsets.tolist() == [0, 4, 5]
    assert kept.item_ids[kept.items.values].tolist() == [6, 9, 8, 7, 5]
    assert kept.times.tolist() == [1, 2, 3, 4, 1]
    assert kept.places.tolist() == [3, 2, 1, 0, 6]
    assert kept.parts is None
