"""Tests of readers/delimited.py: a file is read completely, or not at all."""

import gzip
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.delimited import read_delimited


def read(folder, content, name="table.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    frame = read_delimited(path)
    return frame.columns, frame.rows()


@pytest.mark.parametrize(
    "content",
    [
        "user,item,time\n1,2,3\n4,5,6\n",
        "user,item,time\r\n1,2,3\r\n4,5,6\r\n",
        "user,item,time\n1,2,3\n4,5,6",
        "user,item,time\n1,2,3\n4,5,6\n\n\n",
        "\ufeffuser,item,time\n1,2,3\n4,5,6\n",
        '"user","item","time"\n"1","2","3"\n4,5,6\n',
        "user\titem\ttime\n1\t2\t3\n4\t5\t6\n",
        "user;item;time\n1;2;3\n4;5;6\n",
        "user|item|time\n1|2|3\n4|5|6\n",
        "user::item::time\n1::2::3\n4::5::6\n",
        "user:token\titem:token\ttime:float\n1\t2\t3\n4\t5\t6\n",
        gzip.compress(b"user,item,time\n1,2,3\n4,5,6\n", mtime=0),
    ],
)
def test_one_table_in_many_ways(tmp_path, content):
    found = read(tmp_path, content)
    assert found == (["user", "item", "time"], [("1", "2", "3"), ("4", "5", "6")])


def test_without_a_header(tmp_path):
    names, rows = read(tmp_path, "ann::7\nbob::8\n")
    assert names == ["ann", "7"] or names == ["column_1", "column_2"]
    assert names == ["column_1", "column_2"]  # 7 is a number, so this is a row
    assert rows == [("ann", "7"), ("bob", "8")]


def test_quoted_separators_and_lines(tmp_path):
    _, rows = read(tmp_path, 'id,title\n1,"a, b"\n2,"x\ny"\n3,"say ""hi"""\n')
    assert rows == [("1", "a, b"), ("2", "x\ny"), ("3", 'say "hi"')]
    # Tabs separate text that may hold one quotation mark.
    assert read(tmp_path, 'id\ttitle\n1\t"a\n2\tb\n')[1] == [("1", '"a'), ("2", "b")]


def test_empty_values_are_null_and_spaces_stay(tmp_path):
    assert read(tmp_path, "a,b\n,x \n1,\n")[1] == [(None, "x "), ("1", None)]
    assert read(tmp_path, "a::b\n::x \n1::\n")[1] == [(None, "x "), ("1", None)]


def test_ids_are_not_numbers(tmp_path):
    assert read(tmp_path, "a,b\n007,1e5\n7,1.0\n")[1] == [("007", "1e5"), ("7", "1.0")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("a,b\n", "the file has no rows"),
        ("a::b\n", "the file has no rows"),
        ("a,b\n1,2\n3,4,5\n", "differ from the first line"),
        ("a,b,c\n1,2\n3,4\n", "differ from the first line"),
        ("a::b\n1::2\n3::4::5\n", "row 2 has 3 values"),
        ("a::b\n1::2\n3\n", "row 2 has 1 values"),
        ("a,b,c\n1,2,3\n4,5,\n6,7\n", "row 3 has 2 values, and the first line has 3"),
        ('a,b\n1,"2\n3"\n4,""\n5,\n6\n', "row 4 has 1 values"),
        ("a\tb\r\n1\t2\r\n3\r\n", "row 2 has 1 values"),
        (gzip.compress(b"a;b\n1;2\n3\n", mtime=0), "row 2 has 1 values"),
        ("a,a\n1,2\n", "names column 'a' 2 times"),
        (b"a,b\n\xff\xfe,2\n", "not in UTF-8"),
        (b"a,b\n" + b"1,2\n" * 40_000 + b"\xff,2\n", "not in UTF-8"),
        ('a,b\n1,"2\n3,4\n', "differ from the first line"),
        (",".join(f"c{i}" for i in range(1_000_000)) + "\n", "more than 1000 columns"),
        (gzip.compress(b"a,b\n" + b"1,2\n" * 9999, mtime=0)[:-20], "cannot be read"),
        (b"\x1f\x8bno gzip", "cannot be read"),
        (b"PK\x03\x04 an archive", "is a zip archive"),
        (b"\x00\x01\x02\x03", "has no rows"),
    ],
)
def test_damage_is_one_clear_error(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, content)
    assert str(tmp_path / "table.csv") in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_path_that_is_no_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_delimited(tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match="is a folder"):
        read_delimited(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_delimited(tmp_path / ("a" * 300))
    with pytest.raises(InputError, match="cannot be read"):
        read_delimited(f"{tmp_path}/a\0b")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is a pipe or a device"):
        read_delimited(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match="no such file"):
        read_delimited(tmp_path / "link")


@settings(deadline=None, max_examples=150)
@given(
    content=st.binary(max_size=200) | st.text("ab1,;\t|:\"'\n\r é", max_size=60),
    packed=st.booleans(),
)
def test_anything_is_a_table_or_an_input_error(tmp_path_factory, content, packed):
    path = tmp_path_factory.mktemp("fuzz") / "x"
    content = content if isinstance(content, bytes) else content.encode()
    path.write_bytes(gzip.compress(content) if packed else content)
    try:
        frame = read_delimited(path)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert len(frame) > 0


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.tuples(st.text("abé 12", min_size=1), st.text("xyz'.", min_size=1)),
        min_size=1,
        max_size=30,
    ),
    separator=st.sampled_from(["::", "\t", ",", ";", "|"]),
)
def test_what_was_written_is_read(tmp_path_factory, rows, separator):
    path = tmp_path_factory.mktemp("rows") / "x"
    lines = ["user_id" + separator + "item_id"]
    lines += [user + separator + item for user, item in rows]
    path.write_text("\n".join(lines) + "\n")
    assert read_delimited(path).rows() == rows
