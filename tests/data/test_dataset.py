"""Tests of data/dataset.py: numbering, repeated pairs, time order, item text."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.dataset import Dataset, build_dataset


def frame(rows, **overrides):
    """Interactions from (user, item, time) rows."""
    return pl.DataFrame(
        rows, schema=["user", "item", "time"], orient="row"
    ).with_columns(**overrides)


def history(data: Dataset, user) -> list:
    """Original item ids of an original user id, in time order."""
    row = data.user_ids.tolist().index(user)
    items = data.items[data.offsets[row] : data.offsets[row + 1]]
    return data.item_ids[items].tolist()


ROWS = [(10, 5, 4), (9, 30, 1), (10, 30, 3), (9, 100, 0), (10, 100, 2), (10, 9, 1)]


def test_fields_by_hand():
    data = build_dataset("tiny", frame(ROWS))
    assert data.name == "tiny"
    assert data.user_ids.tolist() == [9, 10] and data.user_ids.dtype == np.int64
    assert data.item_ids.tolist() == [5, 9, 30, 100]
    assert data.item_ids.dtype == np.int64
    assert data.offsets.tolist() == [0, 2, 6] and data.offsets.dtype == np.int64
    assert data.items.tolist() == [3, 2, 1, 3, 2, 0] and data.items.dtype == np.int32
    assert (data.num_users, data.num_items) == (2, 4)
    assert data.item_text is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"


def test_repeated_pairs_keep_their_earliest_time():
    rows = [("u", "a", 5), ("u", "b", 3), ("u", "c", 4), ("u", "a", 1), ("u", "a", 9)]
    data = build_dataset("tiny", frame(rows))
    assert history(data, "u") == ["a", "b", "c"]
    assert "dropped 2 repeated pairs (kept the earliest)" in data.notes


def test_equal_times_keep_file_order():
    items = np.random.default_rng(0).permutation(200).tolist()
    rows = [(user, item, item // 50) for item in items for user in (1, 2)]
    data = build_dataset("ties", frame(rows))
    expected = [i for time in range(4) for i in items if i // 50 == time]
    assert history(data, 1) == expected and history(data, 2) == expected
    assert data.notes == ()


def test_integers_in_strings_are_numbered_like_integers():
    as_strings = frame(
        ROWS, user=pl.col("user").cast(str), item=pl.col("item").cast(str)
    )
    for interactions in (frame(ROWS, item=pl.col("item").cast(pl.Int16)), as_strings):
        data = build_dataset("tiny", interactions, {"30": "thirty", "5": "five"})
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
    data = build_dataset("tiny", frame(rows))
    assert data.item_ids.tolist() == ordered
    assert [str(i) for i in history(data, "u")] == ids


def test_users_and_items_are_ordered_apart():
    rows = [(user, item, 0) for user in ("10", "9") for item in ("a", "10", "9")]
    data = build_dataset("tiny", frame(rows))
    assert data.user_ids.tolist() == [9, 10]
    assert data.item_ids.tolist() == ["10", "9", "a"]


def test_text_is_aligned_and_unseen_items_are_left_out():
    listed = pl.DataFrame(
        {
            "item": [100, 7, 5, 30, 100, 8],
            "text": ["hundred", "seven", "  ", None, "again", None],
        }
    )
    data = build_dataset("tiny", frame(ROWS), listed, notes=["from the reader"])
    assert data.item_text == ("", "", "", "hundred")
    assert data.notes == (
        "from the reader",
        "1 users have fewer than 3 distinct items (they train only)",
        "1 item texts are repeated (kept the first)",
        "left out 2 of 5 listed items (no interaction)",
        "3 of 4 items have no text",
    )


def test_mapping_by_integers_and_no_text_at_all():
    assert build_dataset("x", frame(ROWS), {9: "n", 5: None}).item_text == (
        ("", "n", "", "")
    )
    assert build_dataset("x", frame(ROWS), {9: "", 1234: "other"}).item_text is None
    assert build_dataset("x", frame(ROWS), {}).item_text is None


@pytest.mark.parametrize(
    ("interactions", "message"),
    [
        (frame(ROWS).drop("item"), "no column 'item'.*found: user, time"),
        (frame(ROWS).clear(), "no interactions"),
        (frame([*ROWS[:2], (None, 1, 2)]), "no user id.*interaction 3"),
        (frame([("u", "a", 1), ("u", "", 2)]), "no item id.*interaction 2"),
        (frame([("u", "a", 1.0), ("u", "b", float("nan"))]), "no time.*interaction 2"),
        (frame([("u", "a", None), ("u", "b", 1)]), "no time.*interaction 1"),
        (frame([("u", "a", "monday")]), "no number.*interaction 1: 'monday'"),
        (frame([("u", "a", [1])]), "no time order"),
        (frame([("u", "a", 3), ("u", "b", -3)]), "negative.*interaction 2: -3"),
        (frame([("u", 1.5, 1)]), "no whole number as item id"),
        (frame([("u", [1], 1)]), "item ids are List"),
        (frame([(1, 1, 1), (1, 2, 2), (2, 1, 1), (1, 2, 3)]), "none of the 2 users"),
    ],
)
def test_bad_interactions(interactions, message):
    with pytest.raises(InputError, match=f"^bad: .*{message}") as caught:
        build_dataset("bad", interactions)
    assert "\n" not in str(caught.value)


def test_text_without_its_columns():
    with pytest.raises(InputError, match="no column 'text'"):
        build_dataset("bad", frame(ROWS), pl.DataFrame({"item": [1]}))


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
            build_dataset("loop", frame(rows))
        return
    data = build_dataset("loop", frame(rows))
    assert data.user_ids.tolist() == sorted(expected)
    assert data.item_ids.tolist() == sorted({item for _, item, _ in rows})
    for user, picked in expected.items():
        assert history(data, user) == list(picked)


def test_a_repeated_pair_keeps_its_latest_time_if_asked():
    rows = [("u", 1, 10), ("u", 2, 20), ("u", 1, 30), ("u", 3, 25)]
    early, late = (
        build_dataset("toy", frame(rows), repeated_pairs=which)
        for which in ("earliest", "latest")
    )
    assert history(early, "u") == [1, 2, 3] and history(late, "u") == [2, 3, 1]
    assert late.notes == ("dropped 1 repeated pairs (kept the latest)",)
    assert late.times.tolist() == [20, 25, 30] and late.places.tolist() == [1, 3, 2]
