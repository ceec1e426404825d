"""Tests of candidate_lists.py: every form of the same lists is read alike."""

import gzip

import polars as pl
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.candidate_lists import (
    read_candidates_file,
    read_candidates_frame,
)

ROWS = [("0", "25", "10"), ("0", "25", "11"), ("1", "3", "7")]
FORMS = {
    "ncf": "(0,25)\t10\t11\n(1,3)\t7\n",
    "ncf with spaces": "(0, 25)\t10\t11\t\r\n(1, 3)\t7\r\n\r\n",
    "wide": "user,item,a,b\n0,25,10,11\n1,3,7,\n",
    "wide without a header": "0\t25\t10\t11\n1\t3\t7\n",
    "ragged under a short header": "user_id;item_id;candidates\n0;25;10;11\n1;3;7\n",
    "long": "item,user,candidate\n25,0,10\n25,0,11\n3,1,7\n",
    "other separator": "0::25::10::11\n1::3::7\n",
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_form_is_read_alike(form, packed, tmp_path):
    path = tmp_path / "lists"
    data = FORMS[form].encode()
    path.write_bytes(gzip.compress(data) if packed else data)
    assert read_candidates_file(path).rows() == ROWS


@pytest.mark.parametrize(
    "frame",
    [
        {"user": [0, 0, 1], "item": [25, 25, 3], "negative": [10, 11, 7]},
        {"user": [0, 1], "item": [25, 3], "negatives": [[10, 11], [7]]},
        {"user": ["0", "1"], "item": [25.0, 3.0], "n": [["10", "11"], ["7"]]},
    ],
)
def test_every_frame_is_read_alike(frame, tmp_path):
    frame = pl.DataFrame(frame)
    assert read_candidates_frame("mine", frame).rows() == ROWS
    frame.write_parquet(tmp_path / "lists.parquet")
    assert read_candidates_file(tmp_path / "lists.parquet").rows() == ROWS


def test_wide_columns_may_be_short():
    frame = {"user": [0, 1], "item": [25, 3], "first": [10, 7], "second": [11, None]}
    found = read_candidates_frame("mine", pl.DataFrame(frame)).rows()
    assert sorted(found) == ROWS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("(0,25)\t1\n0,25\t1\n", "row 2 does not begin with \\(user,item\\)"),
        ("(0,25)\n", "row 1 does not have a user, a held-out item and at least one"),
        ("user,item,a\n0,25,\n", "row 1 does not have a user"),
        ("user,item\n0,25\n", "the first row does not have a user"),
        ("user,x,a\n0,25,1\n", "no column has a common name of the item"),
    ],
)
def test_bad_files(text, message, tmp_path):
    path = tmp_path / "lists.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_candidates_file(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_unreadable_files(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_candidates_file(tmp_path / "none")
    with pytest.raises(InputError, match="cannot be read"):
        read_candidates_file(tmp_path)
    (tmp_path / "a").write_bytes(b"(0,25)\t\xff\xfe\n")
    with pytest.raises(InputError, match="is not in UTF-8"):
        read_candidates_file(tmp_path / "a")
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"(0,25)\t1\n" * 99)[:-10])
    with pytest.raises(InputError, match="cannot be read"):
        read_candidates_file(tmp_path / "a.gz")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="is not a complete Parquet file"):
        read_candidates_file(tmp_path / "a.parquet")


def test_a_frame_without_candidates():
    with pytest.raises(InputError, match="mine: has no column of candidates"):
        read_candidates_frame("mine", pl.DataFrame({"user": [1], "item": [2]}))
