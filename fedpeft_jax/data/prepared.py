"""Keeps prepared data sets on disk, by the content of their sources and the settings.

Each folder of the cache is named by the hash of its key, which has the SHA-256 of every
source and every setting that affects reading. A change of either leads to another
folder. A folder is written under another name and then renamed, so it is complete or
absent, also when several runs write it at once, and a damaged one is prepared again.
"""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fedpeft_jax.core.cache_folder import Note, read_cached, write_cached
from fedpeft_jax.core.ragged import Ragged
from fedpeft_jax.core.user_cache import user_cache
from fedpeft_jax.data.dataset import Dataset
from fedpeft_jax.data.readers.files import reading
from fedpeft_jax.data.settings import DataSettings

# Increase it when the same files and settings give a different data set than before.
SCHEME_VERSION = 2

# The key lists which of these are given; the contents of the files are hashed.
_FILES = ("interactions", "valid_interactions", "test_interactions", "items")
# These give the location of the files, and how the prepared data are split. The
# key has all other settings.
_WHERE = ("data_dir", "fetch", "cache")
_SPLITTING = ("split", "valid_items", "time_cut", "data_seed")

_TABLES = ("users", "items", "interactions")

_log = logging.getLogger(__name__)


def cached(
    settings: DataSettings,
    sources: Sequence[Path],
    prepare: Callable[[], Dataset],
    cache_dir: str | os.PathLike[str] | None = None,
    note: Note | None = None,
) -> Dataset:
    """Returns a data set from the cache, or prepares it and writes it to the cache.

    A cache that is damaged, or cannot be read or written, causes a note and no error.

    Args:
      settings: the settings of the data set.
      sources: the files that `prepare` reads, in order.
      prepare: returns the data set.
      cache_dir: the folder of the cache; None for fedpeft_jax/datasets in the user's
        cache folder.
      note: receives a sentence if the cache is damaged or cannot be written; None
        for the log.

    Raises:
      InputError: if a source cannot be read.

    Example:
      >>> import tempfile
      >>> from fedpeft_jax.data.generated import load_synthetic
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     source = Path(folder) / "source"
      ...     _ = source.write_text("content")
      ...     make = lambda: load_synthetic(num_users=9, num_items=10)
      ...     first = cached(DataSettings(), [source], make, folder)
      ...     again = cached(DataSettings(), [source], lambda: 1 / 0, folder)
      >>> first.items.values.tolist() == again.items.values.tolist()
      True
    """
    note = note or _log.warning
    values = dataclasses.asdict(settings)
    left_out = (*_FILES, *_WHERE, *_SPLITTING)
    key = {
        "scheme": SCHEME_VERSION,
        "settings": {k: v for k, v in values.items() if k not in left_out},
        "parts": settings.split == "given",
        "files": [name for name in _FILES if values[name] is not None],
        "sources": [[path.name, _sha256(path)] for path in sources],
    }
    folder = _folder(key, cache_dir, note)
    if folder is None:
        return prepare()
    held = read_cached(folder, lambda path, facts: _load(path, facts, key), note)
    if held is not None:
        return held
    dataset = prepare()
    facts = {"of": key, "name": dataset.name, "notes": dataset.notes}
    write_cached(folder, lambda path: _save(path, dataset), facts, note)
    return dataset


def _sha256(path: Path) -> str:
    with reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder(
    key: dict[str, Any], cache_dir: str | os.PathLike[str] | None, note: Note
) -> Path | None:
    base = user_cache("datasets", note) if cache_dir is None else Path(cache_dir)
    if base is None:
        return None
    content = json.dumps(key, sort_keys=True)
    return base / hashlib.sha256(content.encode()).hexdigest()


def _load(folder: Path, facts: dict[str, Any], key: dict[str, Any]) -> Dataset:
    if facts["of"] != json.loads(json.dumps(key)):
        raise ValueError("it is of other data")
    users, items, rows = (_read_table(folder / f"{name}.parquet") for name in _TABLES)

    def column(name: str) -> np.ndarray | None:
        return rows[name].to_numpy(writable=True) if name in rows.columns else None

    text = tuple(items["text"].to_list()) if "text" in items.columns else None
    values = rows["item"].to_numpy(writable=True)
    return Dataset(
        name=facts["name"],
        user_ids=_ids(users),
        item_ids=_ids(items),
        items=Ragged.from_counts(values, users["count"].to_numpy()),
        item_text=text,
        notes=tuple(facts["notes"]),
        places=column("place"),
        times=column("time"),
        parts=column("part"),
    )


def _save(folder: Path, dataset: Dataset) -> None:
    rows = {"item": dataset.items.values}
    for name, values in (
        ("place", dataset.places), ("time", dataset.times), ("part", dataset.parts),
    ):  # fmt: skip
        if values is not None:
            rows[name] = values
    items: dict[str, Any] = {"id": dataset.item_ids}
    if dataset.item_text is not None:
        items["text"] = list(dataset.item_text)
    users = {"id": dataset.user_ids, "count": dataset.items.counts}
    for name, table in zip(_TABLES, (users, items, rows), strict=True):
        # Polars does not read NumPy's strings of fixed width: it needs lists.
        columns = {k: list(v) if k == "id" else v for k, v in table.items()}
        with (folder / f"{name}.parquet").open("wb") as file:
            pl.DataFrame(columns).write_parquet(file, compression="lz4")


def _read_table(path: Path) -> pl.DataFrame:
    try:
        with path.open("rb") as file:  # Polars would expand '*', '?' and '[' in a path
            return pl.read_parquet(file)
    except pl.exceptions.PolarsError as error:
        raise ValueError(str(error)) from error


def _ids(table: pl.DataFrame) -> np.ndarray:
    ids = table["id"]
    if ids.dtype == pl.String:
        return np.array(ids.to_list(), dtype=np.str_)
    return ids.to_numpy(writable=True)
