"""Tests of readers/times.py: numbers or dates, all in one unit."""

import datetime

import polars as pl
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import DataSettings, from_frame, make_split
from fedpeft_jax.data.readers.times import as_times

NOW = 1_600_000_000


def log(times):
    number = len(times)
    return {"user": [1] * number, "item": list(range(number)), "time": times}


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (
            [NOW, NOW + 1, (NOW + 2) * 1000],
            "2 times look like seconds and 1 like milliseconds",
        ),
        (
            [NOW, NOW * 10**6, NOW * 10**6 + 1],
            "2 times look like microseconds and 1 like seconds",
        ),
        (
            [str(NOW), str(NOW * 1000), str(NOW * 10**9)],
            "1 times look like seconds and 1 like milliseconds and 1 like nanoseconds",
        ),
        (
            [NOW + 0.5, NOW + 1, (NOW + 2) * 1000.0],
            "2 times look like seconds and 1 like milliseconds",
        ),
    ],
)
def test_times_of_several_units(times, message):
    with pytest.raises(InputError) as caught:
        from_frame(log(times))
    assert str(caught.value) == f"table: {message}: convert them to one unit"


@pytest.mark.parametrize(
    "times",
    [
        [NOW, NOW + 1, NOW + 2],
        [NOW * 1000, NOW * 1000 + 5],
        [0, 1, 2],
        [1, 10**6, 10**9, 10**12],  # numbers of no unit
        [5, NOW],
    ],
)
def test_times_of_one_unit(times):
    assert as_times("f", pl.Series(times)).to_list() == times


DAY = datetime.date(2020, 1, 2)
MOMENT = datetime.datetime(2020, 1, 2, 0, 0, 1)
MICROSECONDS = 1_577_923_200 * 10**6


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pl.Series([DAY]), MICROSECONDS),
        (pl.Series([MOMENT]), MICROSECONDS + 10**6),
        (pl.Series([MOMENT]).cast(pl.Datetime("ms")), MICROSECONDS + 10**6),
        (pl.Series([MOMENT]).cast(pl.Datetime("ns")), MICROSECONDS + 10**6),
        (pl.Series([MOMENT]).dt.replace_time_zone("UTC"), MICROSECONDS + 10**6),
        (pl.Series(["2020-01-02"]).cast(pl.Categorical), MICROSECONDS),
        (pl.Series([3]).cast(pl.Decimal(10, 2)), 3),
        (pl.Series([3], dtype=pl.UInt64), 3),
        (pl.Series([3], dtype=pl.Float32), 3),
    ],
)
def test_types_that_are_times(column, expected):
    found = as_times("f", column)
    assert (found.dtype, found.to_list()) == (pl.Int64, [expected])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.Series([datetime.timedelta(3)]), "times are Duration"),
        (pl.Series([datetime.time(3)]), "times are Time"),
        (pl.Series([True]), "times are Boolean"),
        (pl.Series([[1]]), "times are List"),
        (pl.Series([None]), "times are Null"),
        (pl.Series([b"1"]), "times are Binary"),
        (pl.Series([2**63 + 1], dtype=pl.UInt64), "negative or infinite time"),
        (pl.Series([1e300]), "negative or infinite time"),
        (pl.Series([datetime.date(1960, 1, 1)]), "negative or infinite time"),
    ],
)
def test_types_and_values_that_are_no_times(column, message):
    with pytest.raises(InputError, match=f"f: .*{message}") as caught:
        as_times("f", column)
    assert "\n" not in str(caught.value)


def test_equal_times_are_noted():
    data = from_frame(log([NOW] * 5))
    noted, _ = make_split(data)
    assert noted.notes[-1].startswith("all 5 times are equal, so the split follows")
    assert "use split=random" in noted.notes[-1]
    for settings in (DataSettings(split="random"), DataSettings(split="file")):
        assert not any("equal" in note for note in make_split(data, settings)[0].notes)
    assert make_split(from_frame(log([1, 2, 2, 2])))[0].notes == ()
