"""Tests of readers/tables.py: every file format of the same data is the same data."""

import dataclasses
import gzip
import zipfile

import numpy as np
import polars as pl
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import DataSettings, load, load_dataset, make_split
from fedpeft_jax.data.readers.columns import find_column
from tests.data.helpers import assert_same

RNG = np.random.default_rng(0)
PAIRS = np.unique(RNG.integers(1, [[30, 120]], (400, 2)), axis=0)
PAIRS = PAIRS[RNG.permutation(len(PAIRS))]
TIMES = RNG.integers(978_300_000, 978_300_200, len(PAIRS))  # with ties
RATINGS = RNG.integers(1, 6, len(PAIRS))
TITLES = {i: (f"Movie {i} (19{i % 90 + 10})", "Drama|War") for i in range(1, 130)}


def lines(separator, columns, header=None, form=str):
    rows = [header] if header else []
    rows += [separator.join(map(form, row)) for row in zip(*columns, strict=True)]
    return "\n".join(rows) + "\n"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The data as GroupLens would write them."""
    folder = tmp_path_factory.mktemp("dat")
    columns = (PAIRS[:, 0], PAIRS[:, 1], RATINGS, TIMES)
    (folder / "ratings.dat").write_text(lines("::", columns))
    movies = [(i, *text) for i, text in TITLES.items()]
    (folder / "movies.dat").write_text(lines("::", list(zip(*movies, strict=True))))
    return load_dataset("ml-1m", folder, cache=False)


def written(folder, kind):
    """The same data in another format: the settings that read it."""
    columns = (PAIRS[:, 0], PAIRS[:, 1], RATINGS, TIMES)
    frame = pl.DataFrame(
        dict(zip(["user_id", "item_id", "rating", "timestamp"], columns, strict=True))
    )
    items = pl.DataFrame(
        {
            "item_id": list(TITLES),
            "title": [title for title, _ in TITLES.values()],
            "genres": [genres for _, genres in TITLES.values()],
        }
    )
    log, listed = folder / f"log.{kind}", folder / f"items.{kind}"
    if kind == "csv":
        frame.write_csv(log)
        items.write_csv(listed)
    elif kind == "tsv":
        frame.write_csv(log, separator="\t")
        items.write_csv(listed, separator="\t")
    elif kind == "csv.gz":
        log.write_bytes(gzip.compress(frame.write_csv().encode()))
        listed.write_bytes(gzip.compress(items.write_csv().encode()))
    elif kind == "parquet":
        frame.with_columns(pl.col("item_id").cast(pl.String)).write_parquet(log)
        items.with_columns(pl.col("genres").str.split("|")).write_parquet(listed)
    elif kind == "inter":
        typed = "user_id:token\titem_id:token\trating:float\ttimestamp:float"
        log.write_text(lines("\t", columns, typed))
        listed.write_text(
            lines("\t", items.to_dict(as_series=False).values(),
                  "item_id:token\ttitle:token_seq\tgenres:token_seq")
        )  # fmt: skip
    elif kind == "float times":
        frame = frame.with_columns(pl.col("timestamp").cast(pl.Float64))
        frame.write_csv(log)
        items.write_csv(listed)
    elif kind == "dat":
        log.write_text(lines("::", columns))
        items.write_csv(listed)
        return {
            "interactions": str(log), "items": str(listed), "item_column": "column_2",
            "user_column": "column_1", "time_column": "column_4",
        }  # fmt: skip
    return {"interactions": str(log), "items": str(listed)}


@pytest.mark.parametrize(
    "kind", ["csv", "tsv", "csv.gz", "parquet", "inter", "float times"]
)
def test_every_format_prepares_the_same_bits(tmp_path, reference, kind):
    files = written(tmp_path, kind)
    assert_same(load_dataset("table", cache=False, **files), reference)
    assert_same(load_dataset("table", cache=True, **files), reference)
    assert_same(load_dataset("table", cache=True, **files), reference)


def test_a_dat_file_as_a_table(tmp_path, reference):
    files = written(tmp_path, "dat")
    files.pop("items")
    data = load_dataset("table", cache=False, **files)
    assert_same(data, dataclasses.replace(reference, item_text=None))


@pytest.mark.parametrize(
    ("columns", "role", "given", "found"),
    [
        (["userId", "movieId", "rating", "timestamp"], "user", None, "userId"),
        (["userId", "movieId", "rating", "timestamp"], "item", None, "movieId"),
        (["reviewerID", "asin", "unixReviewTime"], "time", None, "unixReviewTime"),
        (["a", "b"], "item", "b", "b"),
        (["user", "item", "date"], "time", "none", None),
        (["user", "item"], "time", None, None),
    ],
)
def test_columns_are_found(columns, role, given, found):
    needed = role in ("user", "item")
    assert find_column("f", columns, role, given, needed=needed) == found


@pytest.mark.parametrize(
    ("columns", "role", "given", "message"),
    [
        (
            ["a", "b"],
            "user",
            None,
            r"no column has a common name.*found: a, b.*`user_column`",
        ),
        (["a", "b"], "user", "c", r"has no column 'c' \(found: a, b\)"),
        (["user", "userId"], "user", None, r"'user' or 'userId'.*`user_column`"),
        (["item_id", "asin", "x"], "item", None, r"'item_id' or 'asin'"),
        ([f"c{i}" for i in range(99)], "item", None, r"c19, \.\.\.\)"),
    ],
)
def test_columns_that_are_missing_or_ambiguous(columns, role, given, message):
    with pytest.raises(InputError, match=message):
        find_column("f", columns, role, given)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,,3\n", "1 interactions have no item id .the first is interaction 1"),
        (",7,3\n", "have no user id"),
        ("a,7,\n", "have no time"),
        ("a,7,-5\n", "negative or infinite time.*interaction 1: -5"),
        ("a,7,soon\n", "a time that is not a number.*'soon'"),
        ("a,7,1\nb,8,2020-01-01\n", "not a number.*interaction 2"),
        ("a,7,nan\n", "no time"),
        ("a,7,inf\n", "infinite"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path, rows, message):
    path = tmp_path / "log.csv"
    path.write_text("user,item,time\n" + rows)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset("table", interactions=str(path), cache=False)
    assert str(path) in str(caught.value)


def test_one_column_twice(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item\n1,2\n")
    settings = {"interactions": str(path), "user_column": "item"}
    with pytest.raises(InputError, match="both column 'item'"):
        load_dataset("table", **settings)


def test_dates_are_times(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item,date\nu,1,2021-05-01\nu,2,2020-12-31\nu,3,2021-01-01\n")
    data = load_dataset("table", interactions=str(path), cache=False)
    assert data.item_ids[data.items.row(0)].tolist() == [2, 3, 1]


def test_text_columns_are_chosen(tmp_path):
    log, items = tmp_path / "log.csv", tmp_path / "items.csv"
    log.write_text("user,item\nu,1\nu,2\nu,3\n")
    items.write_text("item,name,year,maker\n1,Kite,1999,Acme Inc.\n2,,2000,\n")
    files = {"interactions": str(log), "items": str(items), "cache": False}
    data = load_dataset("table", **files)
    assert data.item_text[0] == "Name: Kite. Year: 1999. Maker: Acme Inc."
    assert data.item_text[1:] == ("Year: 2000.", "")
    data = load_dataset("table", **files, text_columns="maker, name")
    assert data.item_text == ("Maker: Acme Inc. Name: Kite.", "", "")
    with pytest.raises(InputError, match=r"'color' \(found: item, name, year, maker"):
        load_dataset("table", **files, text_columns="name,color")


def test_a_damaged_parquet_file(tmp_path):
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user": [1], "item": [2]}).write_parquet(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match="is not a complete Parquet file"):
        load_dataset("table", interactions=str(path), cache=False)
    with pytest.raises(InputError, match="no such file"):
        load_dataset("table", interactions=str(tmp_path / "no.parquet"))


def test_pre_split_files(tmp_path):
    parts = {"train": "u,1\nu,2\nv,3\nv,1\n", "valid": "u,3\n", "test": "u,4\nv,2\n"}
    for name, rows in parts.items():
        (tmp_path / f"{name}.csv").write_text("user,item\n" + rows)
    settings = DataSettings(
        dataset="table", split="given", cache=False,
        interactions=str(tmp_path / "train.csv"),
        valid_interactions=str(tmp_path / "valid.csv"),
        test_interactions=str(tmp_path / "test.csv"),
    )  # fmt: skip
    data, split = make_split(load(settings), settings)
    assert data.user_ids.tolist() == ["u", "v"]
    assert data.item_ids[split.train.values].tolist() == [1, 2, 1, 3]
    assert split.valid.tolist() == [2, -1]
    assert split.test.tolist() == [3, 1]
    (tmp_path / "test.csv").write_text("user,item\nu,4\nu,5\n")
    data, split = make_split(load(settings), settings)
    assert data.item_ids[split.held_out("test").row(0)].tolist() == [4, 5]
    assert data.item_ids[split.held_out("valid").row(0)].tolist() == [3]
    (tmp_path / "test.csv").write_text("user,item\nu,1\n")
    with pytest.raises(InputError, match="1 pairs of a user and an item are in two"):
        load(settings)
    (tmp_path / "test.csv").write_text("user,item,time\nu,1,1\n")
    with pytest.raises(InputError, match="use the same columns in all of them"):
        load(settings)


def test_zip_archives_are_refused(tmp_path):
    path = tmp_path / "log.csv"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("log.csv", "user,item\n1,2\n")
    with pytest.raises(InputError, match="is a zip archive"):
        load_dataset("table", interactions=str(path), cache=False)
