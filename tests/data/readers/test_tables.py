"""Tests of data/tables.py and frames.py: data are the same wherever they come from."""

import dataclasses
import gzip
import zipfile

import numpy as np
import polars as pl
import pytest

from fedpeft_jax import Run, RunConfig
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import DataSettings, from_frame, load, load_dataset
from fedpeft_jax.data.readers.tables import find_column
from tests.small_runs import SETTINGS, small_runs

RNG = np.random.default_rng(0)
PAIRS = np.unique(RNG.integers(1, [[30, 120]], (400, 2)), axis=0)
PAIRS = PAIRS[RNG.permutation(len(PAIRS))]
TIMES = RNG.integers(978_300_000, 978_300_200, len(PAIRS))  # with ties
RATINGS = RNG.integers(1, 6, len(PAIRS))
TITLES = {i: (f"Movie {i} (19{i % 90 + 10})", "Drama|War") for i in range(1, 130)}
PROMPT = "Title: {}. Genres: {}."


def equal(one, two):
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype, field.name
            np.testing.assert_array_equal(a, b, err_msg=field.name)
        elif field.name not in ("name", "notes"):
            assert a == b, field.name
    return True


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
    equal(load_dataset("table", cache=False, **files), reference)
    equal(load_dataset("table", cache=True, **files), reference)
    equal(load_dataset("table", cache=True, **files), reference)


def test_a_dat_file_as_a_table(tmp_path, reference):
    files = written(tmp_path, "dat")
    files.pop("items")
    data = load_dataset("table", cache=False, **files)
    equal(data, dataclasses.replace(reference, item_text=None))


@pytest.mark.parametrize(
    "kind", ["polars", "lazy", "arrow", "dictionary", "array", "structured"]
)
def test_every_frame_prepares_the_same_bits(reference, kind):
    frame = pl.DataFrame({"user": PAIRS[:, 0], "item": PAIRS[:, 1], "time": TIMES})
    structured = np.empty(len(frame), [("user", "i8"), ("item", "i8"), ("time", "i8")])
    for name in frame.columns:
        structured[name] = frame[name].to_numpy()

    class Arrow:
        """Anything that speaks the Arrow C interface."""

        def __arrow_c_stream__(self, requested_schema=None):
            return frame.__arrow_c_stream__(requested_schema)

    tables = {
        "polars": frame,
        "lazy": frame.lazy(),
        "arrow": Arrow(),
        "dictionary": frame.to_dict(as_series=False),
        "array": np.column_stack([PAIRS, TIMES]),
        "structured": structured,
    }
    items = pl.DataFrame(
        {
            "item": list(TITLES),
            "title": [title for title, _ in TITLES.values()],
            "genres": [genres.split("|") for _, genres in TITLES.values()],
        }
    )
    equal(from_frame(tables[kind], items), reference)


@pytest.mark.parametrize("table", [np.zeros((3, 5)), np.zeros(3), object(), 3])
def test_what_is_no_table(table):
    with pytest.raises(InputError, match="table: "):
        from_frame(table)


def test_a_run_takes_a_data_set_from_memory():
    frame = pl.DataFrame({"user": PAIRS[:, 0], "item": PAIRS[:, 1], "time": TIMES})
    with small_runs():
        settings = {**SETTINGS, "num_candidates": 5, "cohort_size": 5}
        config = RunConfig(dataset="table", full_init="random", **settings)
        summary = Run(config, dataset=from_frame(frame, name="mine")).execute()
    assert summary["dataset"]["name"] == "mine"
    assert summary["dataset"]["users"] == 29
    with pytest.raises(InputError, match="set --interactions=FILE"):
        Run(config).execute()


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
        (["a", "b"], "user", None, r"no column is known.*found: a, b.*--user_column"),
        (["a", "b"], "user", "c", r"has no column 'c' \(found: a, b\)"),
        (["user", "userId"], "user", None, r"'user' or 'userId'.*--user_column"),
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
        ("a,7,soon\n", "a time that is no number.*'soon'"),
        ("a,7,1\nb,8,2020-01-01\n", "no number.*interaction 2"),
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
    assert data.item_ids[data.items].tolist() == [2, 3, 1]


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
    with pytest.raises(InputError, match="no whole Parquet file"):
        load_dataset("table", interactions=str(path), cache=False)
    with pytest.raises(InputError, match="no such file"):
        load_dataset("table", interactions=str(tmp_path / "no.parquet"))


def test_pre_split_files(tmp_path):
    parts = {"train": "u,1\nu,2\nv,3\nv,1\n", "valid": "u,3\n", "test": "u,4\nv,2\n"}
    for name, rows in parts.items():
        (tmp_path / f"{name}.csv").write_text("user,item\n" + rows)
    from fedpeft_jax.data import make_split

    settings = DataSettings(
        dataset="table", split="given", cache=False,
        interactions=str(tmp_path / "train.csv"),
        valid_interactions=str(tmp_path / "valid.csv"),
        test_interactions=str(tmp_path / "test.csv"),
    )  # fmt: skip
    data, split = make_split(load(settings), settings)
    assert data.user_ids.tolist() == ["u", "v"]
    assert data.item_ids[split.train].tolist() == [1, 2, 1, 3]
    assert split.valid.tolist() == [2, -1]
    assert split.test.tolist() == [3, 1]
    (tmp_path / "test.csv").write_text("user,item\nu,4\nu,5\n")
    with pytest.raises(InputError, match="user 'u' has 2 test items"):
        make_split(load(settings), settings)
    (tmp_path / "test.csv").write_text("user,item\nu,1\n")
    with pytest.raises(InputError, match="1 pairs of a user and an item are in two"):
        load(settings)
    (tmp_path / "test.csv").write_text("user,item,time\nu,1,1\n")
    with pytest.raises(InputError, match="give all parts the same columns"):
        load(settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "table", "data_dir": "x"}, "name the file with --interactions"),
        ({"interactions": "x.csv"}, "is of --dataset=table"),
        ({"category": "Software"}, "is of the Amazon reviews"),
        ({"dataset": "table", "split": "given"}, "set --test_interactions"),
        ({"dataset": "table", "test_interactions": "x"}, "needs --split=given"),
        ({"split": "given", "dataset": "ml-1m"}, "set --test_interactions"),
        ({"time_cut": 1.0}, "above 0 and below 1"),
        ({"valid_items": 2}, "one validation item"),
        ({"split": "weekly"}, "use one of time, file, random, given, time_cut"),
        ({"download": True}, "leave --download out"),
        ({"min_rating": float("nan")}, "must be finite"),
        ({"k_core": -1}, "at least 0"),
        ({"baselines": "most_popular,oracle"}, "'oracle' is not known"),
        ({"valid_items": 0, "early_stopping_rounds": 9}, "needs validation items"),
    ],
)
def test_settings_that_cannot_work(settings, message):
    with pytest.raises(InputError, match=message):
        RunConfig(**settings)


def test_zip_archives_are_refused(tmp_path):
    path = tmp_path / "log.csv"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("log.csv", "user,item\n1,2\n")
    with pytest.raises(InputError, match="is a zip archive"):
        load_dataset("table", interactions=str(path), cache=False)
