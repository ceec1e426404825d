"""Bad input of every kind is one error of one line, or is read right.

The seeds are fixed, so a failure is repeated by its number.
"""

import datetime
import gzip

import numpy as np
import polars as pl
import pytest

from fedpeft_jax.data import from_frame, load_dataset
from tests.data.fuzzing import HEADER, ROWS, csv, damaged, right_or_refused
from tests.data.helpers import assert_same


def write(path, rows, kind):
    if kind == "csv":
        path.write_text(csv(rows))
    elif kind == "tsv":
        path.write_text(csv(rows).replace(",", "\t"))
    elif kind == "dat":
        path.write_text(csv(rows).replace(",", "::"))
    elif kind == "gz":
        path.write_bytes(gzip.compress(csv(rows).encode(), mtime=0))
    else:
        frame = pl.DataFrame(rows, HEADER.split(","), orient="row")
        with path.open("wb") as file:
            frame.write_parquet(file)


KINDS = {"csv": "csv", "tsv": "tsv", "dat": "dat", "gz": "csv.gz", "parquet": "parquet"}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(tmp_path, kind):
    rng = np.random.default_rng(len(kind))
    path = tmp_path / f"log.{KINDS[kind]}"
    write(path, ROWS, kind)
    whole = load_dataset("table", interactions=str(path), cache=False)
    content, read = path.read_bytes(), 0
    for _ in range(50):
        path.write_bytes(damaged(rng, content))
        settings = {"interactions": str(path), "cache": False}
        data = right_or_refused(lambda s=settings: load_dataset("table", **s))
        if data is not None and kind == "gz":  # it has a checksum
            assert_same(data, whole)
        read += data is not None
    assert read < 50


BAD = [
    *(
        None,
        "",
        " ",
        "\t",
        "NULL",
        "NA",
        "nan",
        "NaN",
        r"\N",
        "None",
        "a\0",
        "\0",
        "\x1b",
    ),
    *("x" * 2000, "é" * 600, "user", "item", "time", "user_id", '"', '""', "'", ","),
    *("::", "|", ";", "\n", "\r", "\u2028", "\ufeff", "-1", "1e309", "inf", "-inf"),
    *("99999999999999999999", "1.5", "007", "0x10", "2020-01-01", "1600000000000", "☃"),
]


@pytest.mark.parametrize("column", [0, 1, 2, 3])
def test_bad_values_in_a_file(tmp_path, column):
    path = tmp_path / "log.csv"
    for number, value in enumerate(BAD):
        rows = [list(map(str, row)) for row in ROWS]
        rows[number % len(rows)][column] = "" if value is None else value
        path.write_text(csv(rows), newline="")
        settings = {"interactions": str(path), "cache": False}
        right_or_refused(lambda s=settings: load_dataset("table", **s))


@pytest.mark.parametrize("column", ["user", "item", "time", "rating"])
def test_bad_values_in_a_table(column):
    for number, value in enumerate(BAD):
        table = dict(
            zip(HEADER.split(","), map(list, zip(*ROWS, strict=True)), strict=True)
        )
        table[column] = [None if v is None else str(v) for v in table[column]]
        table[column][number % len(ROWS)] = value
        right_or_refused(lambda t=table: from_frame(t, min_rating=1))


NOW = datetime.datetime(2020, 1, 1)
COLUMNS = {
    "booleans": [True, False], "lists": [[1], [2]], "bytes": [b"a", b"b"],
    "structures": [{"a": 1}, {"a": 2}], "durations": [NOW - NOW] * 2,
    "clock": [NOW.time()] * 2, "dates": [NOW.date()] * 2, "moments": [NOW] * 2,
    "nulls": [None, None], "nan": [1.0, float("nan")], "infinite": [1.0, float("inf")],
    "negative": [-1, -(2**63)], "halves": [0.5, 1.5], "large": [2**63 - 1, 1],
    "unsigned": pl.Series([2**64 - 1, 1], dtype=pl.UInt64),
    "objects": pl.Series([object(), object()], dtype=pl.Object),
    "categories": pl.Series(["a", "NULL"], dtype=pl.Categorical),
    "decimals": pl.Series(["1.5", "2"]).cast(pl.Decimal(9, 2)),
    "small": pl.Series([1, 2], dtype=pl.Int8),
    "floats": pl.Series([1.0, 2.0], dtype=pl.Float32),
}  # fmt: skip


@pytest.mark.parametrize("column", ["user", "item", "time", "rating"])
def test_columns_of_every_type(column):
    names = HEADER.split(",")
    for values in COLUMNS.values():
        table = pl.DataFrame(ROWS, names, orient="row")
        values = values if isinstance(values, pl.Series) else pl.Series(values)
        table = table.with_columns(
            pl.concat([values] * (len(ROWS) // 2)).alias(column)
            if values.dtype != pl.Object
            else pl.Series(column, [object()] * len(ROWS), dtype=pl.Object)
        )
        right_or_refused(lambda t=table: from_frame(t))
        items = table.select("item", title=column) if column != "item" else table
        right_or_refused(lambda t=items: from_frame(ROW_TABLE, t, catalogue="listed"))


ROW_TABLE = dict(zip(HEADER.split(","), zip(*ROWS, strict=True), strict=True))
SHAPES = [
    {}, {"user": []}, {"user": [], "item": []}, {"user": [1], "item": [1, 2]},
    {"user": [1], "item": [1]}, {"a": [1], "b": [2]}, [], [[1, 2]], "text", b"bytes", 7,
    None, {"user": 3, "item": 4}, {"user": [1], "userId": [1], "item": [1]},
    {"user": [[]], "item": [{}]}, {"user": ["\ud800"] * 3, "item": [1, 2, 3]},
    np.zeros((0, 2)), np.zeros((3, 2), complex), np.zeros((3, 3), object),
    np.zeros(3, [("user", "i8"), ("item", "i8")]), pl.DataFrame(), pl.Series([1]),
]  # fmt: skip


def test_tables_of_every_shape():
    for table in SHAPES:
        right_or_refused(lambda t=table: from_frame(t))
        if table is not None:
            right_or_refused(lambda t=table: from_frame(ROW_TABLE, t))


@pytest.mark.parametrize(
    "name",
    ["", ".", "/", "no", "a\0b", "a" * 300, "a\nb", "*", "?", "[1]", "~", "/dev/null",
     "/proc/self/mem", "http://localhost/x", "s3://bucket/x.csv", "-", "\ud800"],
)  # fmt: skip
def test_names_of_no_file(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text(csv())
    (tmp_path / "1").write_text(csv())
    for end in ("", ".parquet"):
        settings = {"interactions": name + end}
        assert right_or_refused(lambda s=settings: load_dataset("table", **s)) is None
    settings = {"interactions": "log.csv", "items": name}
    assert right_or_refused(lambda s=settings: load_dataset("table", **s)) is None
    for data_set in ("ml-1m", "ml-latest-small", "amazon-2018"):
        settings = {"data_dir": name, "cache": False}
        settings |= {"category": name} if data_set == "amazon-2018" else {}
        load_it = lambda d=data_set, s=settings: load_dataset(d, **s)  # noqa: E731
        assert right_or_refused(load_it) is None
