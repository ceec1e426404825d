"""Reads times: numbers or dates, all in one unit."""

import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.rows import refuse_rows

# Seconds of 1990 and 2100: times of logs are between them, in one of these units.
_FIRST, _LAST = 631_152_000, 4_102_444_800
_UNITS = {
    "seconds": 1, "milliseconds": 1000, "microseconds": 10**6, "nanoseconds": 10**9,
}  # fmt: skip
_MOST_OUTSIDE = 0.01  # share of times that may be dates in no unit


def as_times(name: str, column: pl.Series) -> pl.Series:
    """Returns times as int64, or as float64 if one is not a whole number.

    Dates become microseconds since 1970.

    Args:
      name: the name of the file, for errors.
      column: numbers, dates, or strings of either.

    Raises:
      InputError: with the first row whose time is missing, negative or not a time; for
        a column of another type; or for times in several units.

    Example:
      >>> as_times("f", pl.Series(["978300760.0", "12"])).to_list()
      [978300760, 12]
      >>> as_times("f", pl.Series(["2020-01-02", "1970-01-02"])).to_list()
      [1577923200000000, 86400000000]
      >>> as_times("f", pl.Series([978300760, 978300760000]))
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: f: 1 times look like seconds and 1 like milliseconds:
      convert them to one unit
    """
    if column.dtype in (pl.Categorical, pl.Enum):
        column = column.cast(pl.String)
    if column.dtype == pl.String:
        column = _read_times(name, column)
    if column.dtype in (pl.Date, pl.Datetime):
        column = column.cast(pl.Datetime("us")).to_physical()
    if not column.dtype.is_numeric():
        raise InputError(
            f"{name}: times are {column.dtype}, which has no time order: "
            "use numbers or dates"
        )
    missing = column.is_null()
    if column.dtype.is_float():
        missing = missing | column.is_nan().fill_null(True)
    refuse_rows(name, "have no time", missing, column)
    bad = (column < 0) | (column.cast(pl.Float64) >= 2.0**63)
    refuse_rows(name, "have a negative or infinite time", bad, column)
    if column.dtype.is_integer():
        column = column.cast(pl.Int64)
    else:
        column = column.cast(pl.Float64)
        if (column == column.floor()).all() and (column < 2**53).all():
            column = column.cast(pl.Int64)
    _refuse_units(name, column)
    return column


def _refuse_units(name: str, times: pl.Series) -> None:
    """Raises InputError if almost all times are dates, and in more than one unit."""
    found = {}
    for unit, scale in _UNITS.items():
        if number := int(times.is_between(_FIRST * scale, _LAST * scale).sum()):
            found[unit] = number
    if len(found) < 2 or sum(found.values()) < (1 - _MOST_OUTSIDE) * len(times):
        return
    (first, most), *others = sorted(found.items(), key=lambda pair: -pair[1])
    listed = " and ".join(f"{number} like {unit}" for unit, number in others)
    raise InputError(
        f"{name}: {most} times look like {first} and {listed}: convert them to one unit"
    )


def _read_times(name: str, text: pl.Series) -> pl.Series:
    stripped = text.str.strip_chars()
    missing = stripped.is_null() | (stripped == "").fill_null(True)
    refuse_rows(name, "have no time", missing, text)
    for dtype in (pl.Int64, pl.Float64):
        numbers = stripped.cast(dtype, strict=False)
        if not numbers.is_null().any():
            return numbers
    if numbers.is_null().all():
        try:
            dates = stripped.str.to_datetime(strict=False, time_unit="us")
        except pl.exceptions.ComputeError:  # a format that Polars does not support
            dates = pl.Series([None] * len(text), dtype=pl.Datetime("us"))
        if not dates.is_null().all():
            refuse_rows(name, "have no date, and others have", dates.is_null(), text)
            return dates
    refuse_rows(name, "have a time that is not a number", numbers.is_null(), text)
    return numbers
