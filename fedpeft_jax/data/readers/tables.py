"""Reads interactions from any table: CSV, TSV, Parquet, RecBole's atomic files.

Columns are found by the names that they commonly have in data sets, or are given.
Atomic files: https://recbole.io/docs/user_guide/data/atomic_files.html
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.columns import find_column, refuse_headers
from fedpeft_jax.data.readers.delimited import read_delimited
from fedpeft_jax.data.readers.files import open_file, reading
from fedpeft_jax.data.readers.ids import as_ids, is_missing
from fedpeft_jax.data.readers.raw import (
    TEST,
    TRAIN,
    VALID,
    Raw,
    as_ratings,
    prompt,
)
from fedpeft_jax.data.readers.times import as_times
from fedpeft_jax.data.settings import DataSettings


def read_table(settings: DataSettings) -> Raw:
    """Reads the files that the settings name.

    Raises:
      InputError: for a file that cannot be read, or a column that is missing, ambiguous
        or of a wrong type.

    Example:
      >>> import tempfile
      >>> path = Path(tempfile.mkdtemp()) / "log.csv"
      >>> _ = path.write_text("userId,movieId,timestamp\\n3,7,978300760\\n")
      >>> settings = DataSettings(dataset="table", interactions=str(path))
      >>> read_table(settings).interactions.to_dicts()
      [{'user': '3', 'item': '7', 'time': 978300760}]
    """
    if settings.interactions is None:
        raise InputError(
            "data set 'table' is read from a file: set `interactions=FILE`, or pass a "
            "data set that from_frame made"
        )
    files = [(settings.interactions, TRAIN)]
    if settings.split == "given":
        files += [
            (file, part)
            for file, part in (
                (settings.valid_interactions, VALID),
                (settings.test_interactions, TEST),
            )
            if file is not None
        ]
    frames = []
    for file, part in files:
        frame = rename_columns(file, _read(file), settings)
        if settings.split == "given":
            frame = frame.with_columns(part=pl.lit(part, pl.Int8))
        frames.append(frame)
    text = None
    if settings.items is not None:
        text = item_texts(settings.items, _read(settings.items), settings)
    return Raw(_name(settings.interactions), stack([f for f, _ in files], frames), text)


def rename_columns(
    name: str, frame: pl.DataFrame, settings: DataSettings
) -> pl.DataFrame:
    """Returns the columns `user` and `item`, and `time` and `rating` if they exist.

    Args:
      name: the name of the file, for errors.
      frame: the table.
      settings: the names of the columns; a column without a name is searched.

    Raises:
      InputError: for a column that is missing, ambiguous or of a wrong type.
    """
    columns = frame.columns
    user = find_column(name, columns, "user", settings.user_column)
    item = find_column(name, columns, "item", settings.item_column)
    time = find_column(name, columns, "time", settings.time_column, needed=False)
    rating = find_column(name, columns, "rating", settings.rating_column, needed=False)
    assert user is not None
    assert item is not None
    if user == item:
        raise InputError(
            f"{name}: user and item are both column {user!r}: set `user_column` and "
            "`item_column` to two columns"
        )
    refuse_headers(name, frame[user], frame[item])
    found = {
        "user": as_ids(name, "user", frame[user]),
        "item": as_ids(name, "item", frame[item]),
    }
    if time is not None:
        found["time"] = as_times(name, frame[time])
    if rating is not None:
        found["rating"] = as_ratings(name, frame[rating])
    return pl.DataFrame(found)


def item_texts(name: str, frame: pl.DataFrame, settings: DataSettings) -> pl.DataFrame:
    """Returns columns `item` and `text`, a prompt made of the text columns.

    A table of ids alone has empty texts.

    Args:
      name: the name of the file, for errors.
      frame: a table with one row per item.
      settings: the names of the columns.

    Raises:
      InputError: for a column that is missing or ambiguous, or an id that cannot be
        used. Rows without an id have the item null.
    """
    columns, given = frame.columns, settings.items_id_column
    if given is None and settings.item_column in columns:
        given = settings.item_column
    item = find_column(name, columns, "item", given, setting="items_id_column")
    assert item is not None
    wanted = [column for column in columns if column != item]
    if settings.text_columns is not None:
        wanted = [column.strip() for column in settings.text_columns.split(",")]
        for column in wanted:
            if column not in columns:
                raise InputError(
                    f"{name}: has no column {column!r} (found: {', '.join(columns)}): "
                    "set `text_columns` to some of them"
                )
    missing = is_missing(frame[item])
    ids = as_ids(name, "item", frame[item].filter(~missing), "items")
    texts = [""] * len(ids)
    if wanted:
        texts = [
            prompt((label, _listed(value)) for label, value in row.items())
            for row in frame.filter(~missing).select(wanted).iter_rows(named=True)
        ]
    listed = pl.DataFrame({"item": ids, "text": pl.Series(texts, dtype=pl.String)})
    return pl.concat([listed, listed.clear(int(missing.sum()))])


def _listed(value: Any) -> Any:
    """Splits a value at its bars into a list, as MovieLens writes genres."""
    return value.split("|") if isinstance(value, str) and "|" in value else value


def _read(file: str) -> pl.DataFrame:
    path = Path(file)
    if path.suffix not in (".parquet", ".pq"):
        return read_delimited(path)
    try:
        with reading(path), open_file(path) as opened:
            return pl.read_parquet(opened)
    except pl.exceptions.PolarsError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: is not a complete Parquet file ({reason}): write it again"
        ) from error


def stack(names: Sequence[str], frames: list[pl.DataFrame]) -> pl.DataFrame:
    """Returns the rows of several tables, one table after the other.

    Args:
      names: the name of each table, for errors.
      frames: the tables.

    Raises:
      InputError: if their columns differ.
    """
    columns = [
        ", ".join(column for column in frame.columns if column != "part")
        for frame in frames
    ]
    for name, found in zip(names, columns, strict=True):
        if found != columns[0]:
            raise InputError(
                f"{name}: has {found}, and {names[0]} has {columns[0]}: use the same "
                "columns in all of them"
            )
    return pl.concat(frames, how="vertical_relaxed") if len(frames) > 1 else frames[0]


def _name(file: str) -> str:
    return Path(file).name.partition(".")[0] or "table"
