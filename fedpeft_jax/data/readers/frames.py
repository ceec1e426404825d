"""Reads interactions from a table in memory, of any library that has tables."""

from typing import Any

import numpy as np
import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.raw import TEST, TRAIN, VALID, Raw
from fedpeft_jax.data.readers.tables import item_texts, rename_columns, stack
from fedpeft_jax.data.settings import DataSettings


def read_frame(
    interactions: Any,
    items: Any = None,
    *,
    name: str,
    settings: DataSettings,
    valid: Any = None,
    test: Any = None,
) -> Raw:
    """Reads tables in memory.

    Args:
      interactions: a Polars data frame, anything with `__arrow_c_stream__` (pandas,
        PyArrow, DuckDB), a dictionary of columns, a structured array, or an array
        [n, 2] of (user, item) or [n, 3] of (user, item, time).
      items: a table of one of these kinds with the text of the items; None for no text.
      name: the name of the data set.
      settings: the names of the columns.
      valid: a table with the validation interactions; None for none.
      test: a table with the test interactions; None if the data are not split.

    Raises:
      InputError: if an argument is not a table, a column is missing, or there are
        validation interactions and no test interactions.

    Example:
      >>> table = {"userId": [3, 3], "movieId": [7, 9]}
      >>> settings = DataSettings(dataset="table")
      >>> read_frame(table, name="log", settings=settings).interactions.to_dicts()
      [{'user': 3, 'item': 7}, {'user': 3, 'item': 9}]
    """
    if valid is not None and test is None:
        raise InputError(f"{name}: `valid` needs test interactions, too: pass `test`")
    given = ((name, interactions, TRAIN), ("valid", valid, VALID), ("test", test, TEST))
    names, frames = [], []
    for table_name, table, part in given:
        if table is not None or part == TRAIN:
            frame = as_frame(table_name, table)
            frame = rename_columns(table_name, frame, settings)
            if test is not None:
                frame = frame.with_columns(part=pl.lit(part, pl.Int8))
            names.append(table_name)
            frames.append(frame)
    text = None
    if items is not None:
        text = item_texts(name, as_frame(name, items), settings)
    return Raw(name, stack(names, frames), text)


def as_frame(name: str, table: Any) -> pl.DataFrame:
    """Returns a table in memory as a Polars data frame.

    Args:
      name: the name of the table, for errors.
      table: as the interactions of `read_frame`.

    Raises:
      InputError: if it is not a table.
    """
    if isinstance(table, pl.LazyFrame):
        return table.collect()
    if isinstance(table, np.ndarray) and table.dtype.names is None:
        roles = ["user", "item", "time"]
        if table.ndim != 2 or table.shape[1] not in (2, 3):
            raise InputError(
                f"{name}: an array of shape {list(table.shape)} is not a table: use "
                "one of [n, 2] (user, item) or [n, 3] (user, item, time)"
            )
        return pl.DataFrame(
            {
                role: table[:, place]
                for place, role in enumerate(roles[: table.shape[1]])
            }
        )
    try:
        try:
            return pl.DataFrame(table)
        except ImportError:  # pandas has the Arrow interface, but needs PyArrow for it
            return _by_columns(table)
    except (
        TypeError, ValueError, AttributeError, KeyError, OverflowError,
        pl.exceptions.PolarsError, pl.exceptions.PanicException,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{name}: {type(table).__name__} is not a table ({reason}): use a data "
            "frame"
        ) from error


def _by_columns(table: Any) -> pl.DataFrame:
    """Converts a table with `columns` and `table[name]`, such as that of pandas."""
    names = [str(name) for name in table.columns]
    values = (_as_series(table[name]) for name in table.columns)
    return pl.DataFrame(dict(zip(names, values, strict=True)))


def _as_series(column: Any) -> pl.Series:
    array = np.asarray(column)
    if array.dtype.kind in "iufbM":
        return pl.Series(array, nan_to_null=True)
    # Python objects: strings, lists, or values of a type with missing ones.
    return pl.Series([None if _is_missing(value) else value for value in array])


def _is_missing(value: Any) -> bool:
    # None, NaN, and pandas' NA and NaT.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value
