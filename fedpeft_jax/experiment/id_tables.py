"""The items, the users and the histories of a run, with their original ids.

A model knows items and users by number only. These tables say which item or user a
number stands for, and what each user interacted with. They are written when a run
starts, so that a run can be used before it has finished. `histories.parquet` has the
users' interactions: it belongs to the machine that simulates the clients.
"""

import hashlib
import io
import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.manifest import digest_of
from fedpeft_jax.core.ragged import Ragged
from fedpeft_jax.data import Dataset, Split
from fedpeft_jax.data.titles import titles_of
from fedpeft_jax.experiment.run_folder import TABLES, TABLES_MANIFEST

_MOST_JSON = 2**26  # bytes


class IdTables(NamedTuple):
    """Who the numbers of a model stand for.

    Attributes:
      name: the name of the data set.
      item_ids: int64[I] or str[I], original item ids; the row is the item's number.
      titles: the title of each item, None where it is unknown.
      user_ids: int64[U] or str[U], original user ids; the row is the client's number.
      items: int32 values [nnz] in U rows, the items of each user in time order.
      trains: bool[nnz], whether the interaction trains; the others are held out.
    """

    name: str
    item_ids: np.ndarray
    titles: tuple[str | None, ...]
    user_ids: np.ndarray
    items: Ragged
    trains: np.ndarray

    @property
    def num_items(self) -> int:
        """I, the number of items."""
        return len(self.item_ids)

    @property
    def num_users(self) -> int:
        """U, the number of users."""
        return len(self.user_ids)


def id_tables(dataset: Dataset, split: Split) -> IdTables:
    """Returns the tables of a data set and its split.

    Args:
      dataset: the users, items and histories that were split.
      split: the clients' training items; all other interactions are held out.

    Example:
      >>> from fedpeft_jax.data import leave_one_out, load_dataset
      >>> data = load_dataset("synthetic")
      >>> tables = id_tables(data, leave_one_out(data))
      >>> tables.num_users, int((~tables.trains).sum()), tables.titles[0]
      (1000, 2000, 'The Saddle Sheriff (1985)')
    """
    texts = dataset.item_text
    keys = dataset.items.owners * np.int64(dataset.num_items) + dataset.items.values
    train = split.train.owners * np.int64(dataset.num_items) + split.train.values
    return IdTables(
        name=dataset.name,
        item_ids=dataset.item_ids,
        titles=tuple(titles_of(texts) if texts else [None] * dataset.num_items),
        user_ids=dataset.user_ids,
        items=dataset.items,
        trains=np.isin(keys, train, assume_unique=True),
    )


def frames_of(tables: IdTables) -> dict[str, pl.DataFrame]:
    """Returns the frames that a run folder holds, by the name of their file.

    Args:
      tables: the tables of the run.
    """
    num_users = pl.Series(np.bincount(tables.items.values, minlength=tables.num_items))
    return {
        "items": pl.DataFrame(
            {
                "item": tables.item_ids.tolist(),
                "title": pl.Series(tables.titles, dtype=pl.String),
                "count": num_users,
            }
        ),
        "users": pl.DataFrame(
            {
                "user": tables.user_ids.tolist(),
                "count": tables.items.counts,
                "train_items": tables.items.keep_values(tables.trains).counts,
            }
        ),
        "histories": pl.DataFrame(
            {
                "user": tables.items.owners.astype(np.int32),
                "item": tables.items.values.astype(np.int32),
                "trains": tables.trains,
            }
        ),
    }


def read_id_tables(path: pathlib.Path) -> IdTables:
    """Reads the tables of a run folder, after a check of every file.

    Args:
      path: the run folder.

    Raises:
      InputError: if a file is missing or damaged, or does not belong to the others.
    """
    manifest_path = path / TABLES_MANIFEST
    manifest = read_json(manifest_path)
    try:
        held = {k: v for k, v in manifest.items() if k != "sha256"}
        if digest_of(held) != manifest["sha256"]:
            raise ValueError("it has another content than when it was written")
        frames = {name: _read(path, name, manifest["files"][name]) for name in TABLES}
        return _from_frames(str(manifest["dataset"]), **frames)
    except (KeyError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise _damaged(manifest_path, reason) from error


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Args:
      path: the file.

    Raises:
      InputError: if there is no such file, or it holds something else.
    """
    try:
        if path.is_symlink() or not path.is_file():
            raise InputError(f"{path} does not exist: name the folder of a run")
        if path.stat().st_size > _MOST_JSON:
            raise _damaged(path, "it is too large")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise _damaged(path, " ".join(str(error).split())[:200]) from error
    if not isinstance(found, dict):
        raise _damaged(path, "it is no JSON object")
    return found


def _damaged(path: pathlib.Path, reason: str) -> InputError:
    return InputError(
        f"{path} is damaged ({reason}): copy the run folder again, or make a new run"
    )


def _read(path: pathlib.Path, name: str, expected: Any) -> pl.DataFrame:
    """Returns the frame in a file, if it is the file that the manifest lists."""
    file = path / f"{name}.parquet"
    if file.is_symlink() or not file.is_file():
        raise _damaged(file, "there is no such file")
    size, digest, rows = expected
    try:
        if file.stat().st_size != size:
            raise _damaged(file, "it has another size than when it was written")
        content = file.read_bytes()
    except OSError as error:
        raise _damaged(file, str(error.strerror)) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise _damaged(file, "it has another content than when it was written")
    lazy = pl.scan_parquet(io.BytesIO(content))
    if lazy.select(pl.len()).collect().item() != rows:
        raise _damaged(file, "it has another number of rows than its manifest says")
    return pl.read_parquet(io.BytesIO(content), columns=list(_COLUMNS[name]))


_ID = (pl.Int64, pl.String)
_COLUMNS: dict[str, Mapping[str, tuple[Any, ...]]] = {
    "items": {"item": _ID, "title": (pl.String,)},
    "users": {"user": _ID},
    "histories": {"user": (pl.Int32,), "item": (pl.Int32,), "trains": (pl.Boolean,)},
}


def _from_frames(
    name: str, items: pl.DataFrame, users: pl.DataFrame, histories: pl.DataFrame
) -> IdTables:
    """Returns the tables of frames, after a check of everything in them."""
    frames = {"items": items, "users": users, "histories": histories}
    for table, columns in _COLUMNS.items():
        for column, dtypes in columns.items():
            series = frames[table][column]
            if series.dtype not in dtypes:
                raise ValueError(f"{column} of {table} is {series.dtype}")
            if column != "title" and series.null_count():
                raise ValueError(f"{column} of {table} has missing values")
    for ids in (items["item"], users["user"]):
        if ids.n_unique() != len(ids) or not len(ids):
            raise ValueError(f"the ids of each {ids.name} are not distinct")
    owners, values = (histories[c].to_numpy() for c in ("user", "item"))
    bounds = [(owners, len(users)), (values, len(items))]
    if any(len(x) and not 0 <= x.min() <= x.max() < most for x, most in bounds):
        raise ValueError("a history names a user or an item that is not listed")
    if (np.diff(owners) < 0).any():
        raise ValueError("the histories are not in the order of the users")
    counts = np.bincount(owners, minlength=len(users))
    return IdTables(
        name=name,
        item_ids=_array(items["item"]),
        titles=tuple(items["title"].to_list()),
        user_ids=_array(users["user"]),
        items=Ragged.from_counts(values.astype(np.int32), counts),
        trains=histories["trains"].to_numpy().astype(bool),
    )


def _array(ids: pl.Series) -> np.ndarray:
    if ids.dtype == pl.String:
        return np.array(ids.to_list(), dtype=np.str_)
    return ids.to_numpy().copy()
