"""Tests of readers/frames.py: every kind of table in memory is read alike."""

import numpy as np
import polars as pl
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import DataSettings, from_frame, make_split
from fedpeft_jax.data.readers.frames import read_frame

SETTINGS = DataSettings(dataset="table")
RNG = np.random.default_rng(0)
FRAME = pl.DataFrame(
    {
        "user": RNG.integers(1, 30, 400),
        "item": RNG.integers(1, 120, 400),
        "time": RNG.integers(978_300_000, 978_300_200, 400),
    }
)


class Arrow:
    """Anything that has the Arrow C interface."""

    def __arrow_c_stream__(self, requested_schema=None):
        return FRAME.__arrow_c_stream__(requested_schema)


def structured():
    table = np.empty(len(FRAME), [(name, "i8") for name in FRAME.columns])
    for name in FRAME.columns:
        table[name] = FRAME[name].to_numpy()
    return table


@pytest.mark.parametrize(
    "table",
    [
        FRAME,
        FRAME.lazy(),
        Arrow(),
        FRAME.to_dict(as_series=False),
        FRAME.to_numpy(),
        structured(),
        FRAME.select("time", pl.col("item").cast(pl.Int16), "user", other="time"),
    ],
    ids=["polars", "lazy", "arrow", "dictionary", "array", "structured", "columns"],
)
def test_every_kind_of_table(table):
    raw = read_frame(table, name="mine", settings=SETTINGS)
    assert raw.name == "mine" and raw.item_text is None and raw.notes == ()
    assert raw.interactions.equals(FRAME)


class Pandas:
    """A data frame of pandas, whose Arrow interface needs a package that is absent."""

    def __init__(self, **columns):
        self._columns = {name: np.asarray(column) for name, column in columns.items()}
        self.columns = list(columns)

    def __getitem__(self, name):
        return self._columns[name]

    def __arrow_c_stream__(self, requested_schema=None):
        raise ModuleNotFoundError("Missing optional dependency 'pyarrow'")


class NAType:
    """What pandas writes for a missing value, by the name of its type."""


def strings(*values):
    column = np.empty(len(values), object)
    column[:] = values
    return column


def test_a_table_of_pandas_without_pyarrow():
    log = Pandas(
        user=strings("é", "b", "b"),
        item=np.array([3, 4, 5], np.int32),
        time=np.array(["2020-01-02", "1970-01-02", "2020-01-03"], "datetime64[ns]"),
        rating=np.array([1.5, np.nan, 2]),
    )
    items = Pandas(
        item=[3, 4, 5],
        title=strings("Up", None, NAType()),
        genres=strings(["War", "Drama"], float("nan"), []),
    )
    raw = read_frame(log, items, name="mine", settings=SETTINGS)
    assert raw.interactions["rating"].to_list() == [1.5, None, 2.0]
    assert raw.interactions.drop("rating").rows() == [
        ("é", 3, 1_577_923_200_000_000),
        ("b", 4, 86_400_000_000),
        ("b", 5, 1_578_009_600_000_000),
    ]
    assert raw.item_text.rows() == [
        (3, "Title: Up. Genres: War, Drama."), (4, ""), (5, ""),
    ]  # fmt: skip
    with pytest.raises(InputError, match="mine: 1 interactions have no user id"):
        read_frame(
            Pandas(user=strings("a", NAType()), item=[1, 2]),
            name="mine",
            settings=SETTINGS,
        )
    with pytest.raises(InputError, match="mine: Pandas is not a table"):
        read_frame(
            Pandas(user=strings("a", 3), item=[1, 2]), name="mine", settings=SETTINGS
        )


def test_pandas_itself():
    pandas = pytest.importorskip("pandas")
    log = pandas.DataFrame({"user": ["é", "b"], "item": [3, 4]})
    log["time"] = pandas.to_datetime(["2020-01-02", "1970-01-02"])
    items = pandas.DataFrame({"item": [3, 4], "title": ["Up", None]})
    raw = read_frame(log, items, name="mine", settings=SETTINGS)
    assert raw.interactions["user"].to_list() == ["é", "b"]
    assert raw.item_text.rows() == [(3, "Title: Up."), (4, "")]


def test_an_array_of_pairs_has_no_times():
    raw = read_frame(np.array([[3, 7], [3, 9]]), name="mine", settings=SETTINGS)
    assert raw.interactions.to_dict(as_series=False) == {"user": [3, 3], "item": [7, 9]}


def test_items_have_text():
    items = {"movie": [7, 9], "title": ["Up", None], "genres": [["War", "Drama"], []]}
    settings = DataSettings(dataset="table", item_column="movie")
    log = {"user": [3, 3], "movie": [7, 9]}
    raw = read_frame(log, items, name="mine", settings=settings)
    assert raw.item_text.rows() == [(7, "Title: Up. Genres: War, Drama."), (9, "")]


@pytest.mark.parametrize("table", [np.zeros((3, 5)), np.zeros(3), object(), 3])
def test_what_is_not_a_table(table):
    with pytest.raises(InputError, match="mine: .* is not a table"):
        read_frame(table, name="mine", settings=SETTINGS)
    with pytest.raises(InputError, match="mine: .* is not a table"):
        read_frame(FRAME, table, name="mine", settings=SETTINGS)


def test_frames_that_are_already_split():
    train = pl.DataFrame({"user": [1, 1, 2, 2], "item": [10, 11, 10, 12]})
    valid = pl.DataFrame({"user": [1, 2, 2], "item": [12, 11, 13]})
    test = pl.DataFrame({"user": [1, 1, 2], "item": [13, 14, 14]})
    data = from_frame(train, valid=valid, test=test)
    settings = DataSettings(dataset="table", split="given")
    data, split = make_split(data, settings)
    assert split.name == "given"
    assert split.train.values.tolist() == [0, 1, 0, 2]
    held = [split.held_out(target) for target in ("valid", "test")]
    assert [rows.counts.tolist() for rows in held] == [[1, 2], [2, 1]]
    assert data.item_ids[held[0].values].tolist() == [12, 11, 13]
    assert data.item_ids[held[1].values].tolist() == [13, 14, 14]
    assert split.valid.tolist() == [2, 1] and split.test.tolist() == [3, 4]
    # One item of each user in each part, as before there could be several.
    one = from_frame(train, test=test[1:])
    _, alone = make_split(one, settings)
    assert alone.all_test is None and alone.all_valid is None
    assert alone.held_out("test").counts.tolist() == [1, 1]


def test_frames_that_are_split_have_one_form():
    train = pl.DataFrame({"user": [1, 1, 1], "item": [1, 2, 3]})
    with pytest.raises(InputError, match="`valid` needs test interactions"):
        from_frame(train, valid=train)
    with pytest.raises(InputError, match="test: no column has a common name of the"):
        from_frame(train, test=pl.DataFrame({"user": [1], "x": [4]}))
    with pytest.raises(InputError, match="test: has user, item, time, and table has"):
        from_frame(train, test={"user": [1], "item": [4], "time": [3]})
    with pytest.raises(InputError, match="pairs of a user and an item are in two"):
        from_frame(train, test={"user": [1], "item": [3]})
    data = from_frame(train, test={"user": [1], "item": [4]})
    with pytest.raises(InputError, match="`split=time` would split them again"):
        make_split(data, DataSettings(dataset="table"))
