"""Tests of readers/ids.py: what stands for a missing value is no user and no item."""

import polars as pl
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import from_frame, load_dataset
from fedpeft_jax.data.readers.ids import MISSING, as_ids

IDS = ["a", "b", "c", "d"]


def log(user=("u",) * 4, item=IDS):
    return {"user": list(user), "item": list(item)}


@pytest.mark.parametrize("token", MISSING)
@pytest.mark.parametrize("what", ["user", "item"])
def test_what_stands_for_a_missing_value(tmp_path, token, what):
    message = (
        f"2 interactions have the {what} id {token!r}, which stands for a missing "
        "value (the first is row 2): remove them, or rename the id if it is a real one"
    )
    column = ["a", token, "b", token]
    with pytest.raises(InputError) as caught:
        from_frame(log(**{what: column}))
    assert str(caught.value) == f"table: {message}"
    path = tmp_path / "log.csv"
    rows = zip(*log(**{what: column}).values(), strict=True)
    path.write_text("user,item\n" + "".join(f"{u},{i}\n" for u, i in rows))
    with pytest.raises(InputError) as caught:
        load_dataset("table", interactions=str(path), cache=False)
    assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    "name", ["Nan", "nullable", "NA1", "none at all", "0", "-", "ñ"]
)
def test_what_is_an_id(name):
    assert name in from_frame(log(item=["a", "b", "c", name])).item_ids.tolist()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (None, "have no {} id"),
        ("", "have no {} id"),
        (" \t", "have no {} id"),
        ("a\0", "have a control character in the {} id"),
        ("a\nb", "have a control character in the {} id"),
        ("a\x9f", "have a control character in the {} id"),
        ("é" * 501, "have {} ids of more than 1000 bytes"),
    ],
)
@pytest.mark.parametrize("what", ["user", "item"])
def test_ids_that_cannot_be_used(bad, message, what):
    with pytest.raises(InputError) as caught:
        from_frame(log(**{what: ["a", bad, "b", bad]}))
    text = str(caught.value)
    assert text.startswith(
        f"table: 2 interactions {message.format(what)} (the first is"
    )
    assert "interaction 2: " in text and "\n" not in text and len(text) < 300


def test_one_long_id_takes_no_memory(tmp_path):
    path = tmp_path / "log.csv"
    rows = "".join(f"u{n % 900},i{n}\n" for n in range(20_000))
    path.write_text("user,item\n" + rows + f"u1,{'x' * 200_000}\n")
    with pytest.raises(InputError, match="1 interactions have item ids of more than"):
        load_dataset("table", interactions=str(path), cache=False)


def test_the_longest_ids_are_kept():
    data = from_frame(log(item=["a", "é" * 500, "b" * 1000, "c"]))
    assert data.item_ids.tolist() == ["a", "b" * 1000, "c", "é" * 500]


def test_integers_follow_numeric_order():
    for ids in ([10, 9, 2, 1], ["10", "9", "2", "1"], [10.0, 9.0, 2.0, 1.0]):
        assert from_frame(log(item=ids)).item_ids.tolist() == [1, 2, 9, 10]
    mixed = from_frame(log(item=["10", "9", "x", "1"]))
    assert mixed.item_ids.tolist() == ["1", "10", "9", "x"]


@pytest.mark.parametrize(
    "column",
    [pl.Series([True]), pl.Series([[1]]), pl.Series([b"a"]), pl.Series([1.5])],
)
def test_columns_that_are_no_ids(column):
    with pytest.raises(InputError, match="f: "):
        as_ids("f", "user", column)


def test_items_without_an_id_are_left_out_and_counted():
    items = {"item": ["a", None, "", " ", "b"], "title": ["A", "x", "y", "z", "B"]}
    data = from_frame(log(), items)
    assert data.item_text == ("Title: A.", "Title: B.", "", "")
    assert "left out 3 item texts without an item id" in data.notes
    with pytest.raises(InputError, match="1 items have the item id 'NULL'"):
        from_frame(log(), {"item": ["a", "NULL"], "title": ["A", "x"]})
    with pytest.raises(InputError, match="table: item ids are List"):
        from_frame(log(), {"item": [[1], [2]], "title": ["A", "x"]})
    # pandas stores integers as floating-point numbers if some are missing.
    numbers = {"item": [1.0, None, float("nan"), 2.0], "title": ["A", "x", "y", "B"]}
    data = from_frame(log(item=[1, 2, 3, 4]), numbers)
    assert data.item_text == ("Title: A.", "Title: B.", "", "")


@pytest.mark.parametrize(
    ("header", "repeated"),
    [
        ("user,item", "user,item"),
        ("userId,movieId,timestamp", "userId,movieId,timestamp"),
        ("user_id:token,item_id:token", "user_id:token,item_id:token"),
        ("user_id:token,item_id:token", "user_id,item_id"),
        ("who,what", "who,what"),
        ("userId,itemId", "user_id,ITEM ID"),
    ],
)
@pytest.mark.parametrize("place", [0, 2])
def test_a_second_header_is_no_user(tmp_path, header, repeated, place):
    width = header.count(",") - 1
    rows = [f"u,{n}" + f",{n}" * width for n in range(4)]
    rows.insert(place, repeated)
    path = tmp_path / "log.csv"
    path.write_text("\n".join([header, *rows]))
    settings = {"interactions": str(path), "cache": False}
    if "who" in header:
        settings |= {"user_column": "who", "item_column": "what"}
    with pytest.raises(InputError, match="1 interactions repeat the header") as caught:
        load_dataset("table", **settings)
    assert f"interaction {place + 1}" in str(caught.value)


def test_a_user_may_have_the_name_of_a_column():
    data = from_frame(log(user=["user", "user", "user", "b"]))
    assert data.user_ids.tolist() == ["b", "user"]
