"""Keeps prepared data sets on disk, by the content of their sources and the settings.

Each folder of the cache is named by the hash of a manifest, which holds the SHA-256 of
every source and every setting that affects reading. A change of either leads to another
folder. A folder is written under another name and then renamed, so it is complete or
absent, also when several runs write it at once.
"""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fedpeft_jax.core.ragged import Ragged
from fedpeft_jax.core.user_cache import user_cache
from fedpeft_jax.data.dataset import Dataset
from fedpeft_jax.data.settings import DataSettings

# Increase it when the same files and settings give a different data set than before.
SCHEME_VERSION = 1

# The manifest lists which of these are given; the contents of the files are hashed.
_FILES = ("interactions", "valid_interactions", "test_interactions", "items")
# These give the location of the files, and how the prepared data are split. The
# manifest has all other settings.
_WHERE = ("data_dir", "fetch", "cache")
_SPLITTING = ("split", "valid_items", "time_cut", "data_seed")

_log = logging.getLogger(__name__)


def cached(
    settings: DataSettings,
    sources: Sequence[Path],
    prepare: Callable[[], Dataset],
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Returns a data set from the cache, or prepares it and writes it to the cache.

    A cache that cannot be read or written causes a warning in the log, and no error.

    Args:
      settings: the settings of the data set.
      sources: the files that `prepare` reads, in order.
      prepare: returns the data set.
      cache_dir: the folder of the cache; None for fedpeft_jax/datasets in the user's
        cache folder.

    Example:
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
    values = dataclasses.asdict(settings)
    left_out = (*_FILES, *_WHERE, *_SPLITTING)
    manifest = {
        "scheme": SCHEME_VERSION,
        "settings": {k: v for k, v in values.items() if k not in left_out},
        "parts": settings.split == "given",
        "files": [name for name in _FILES if values[name] is not None],
        "sources": [[path.name, _sha256(path)] for path in sources],
    }
    folder = _folder(manifest, cache_dir)
    if folder is None:
        return prepare()
    dataset = _read(folder, manifest)
    if dataset is None:
        dataset = prepare()
        _write(folder, manifest, dataset)
    return dataset


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _folder(
    manifest: dict[str, Any], cache_dir: str | os.PathLike[str] | None
) -> Path | None:
    base = user_cache("datasets") if cache_dir is None else Path(cache_dir)
    if base is None:
        return None
    content = json.dumps(manifest, sort_keys=True)
    return base / hashlib.sha256(content.encode()).hexdigest()


def _read(folder: Path, manifest: dict[str, Any]) -> Dataset | None:
    if not folder.is_dir():
        return None
    try:
        held = json.loads((folder / "manifest.json").read_text())
        if held["manifest"] != json.loads(json.dumps(manifest)):
            raise ValueError("the manifest is a different one")
        users = pl.read_parquet(folder / "users.parquet")
        items = pl.read_parquet(folder / "items.parquet")
        rows = pl.read_parquet(folder / "interactions.parquet")
        sizes = [len(users), len(items), len(rows)]
        if sizes != held["sizes"] or users["count"].sum() != len(rows):
            raise ValueError("the sizes do not match")
    except (OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
        _log.warning("cache folder %s is damaged, preparing again: %s", folder, error)
        shutil.rmtree(folder, ignore_errors=True)
        return None

    def column(name: str) -> np.ndarray | None:
        return rows[name].to_numpy(writable=True) if name in rows.columns else None

    text = tuple(items["text"].to_list()) if "text" in items.columns else None
    values = rows["item"].to_numpy(writable=True)
    return Dataset(
        name=held["name"],
        user_ids=_ids(users),
        item_ids=_ids(items),
        items=Ragged.from_counts(values, users["count"].to_numpy()),
        item_text=text,
        notes=tuple(held["notes"]),
        places=column("place"),
        times=column("time"),
        parts=column("part"),
    )


def _write(folder: Path, manifest: dict[str, Any], dataset: Dataset) -> None:
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
    tables = {"users": users, "items": items, "interactions": rows}
    facts = {
        "manifest": manifest,
        "name": dataset.name,
        "notes": dataset.notes,
        "sizes": [dataset.num_users, dataset.num_items, len(dataset.items.values)],
    }
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, suffix=".tmp"))
        try:
            for name, table in tables.items():
                # Polars does not read NumPy's strings of fixed width: it needs lists.
                columns = {k: list(v) if k == "id" else v for k, v in table.items()}
                frame = pl.DataFrame(columns)
                frame.write_parquet(aside / f"{name}.parquet", compression="lz4")
            (aside / "manifest.json").write_text(json.dumps(facts, indent=2) + "\n")
            aside.rename(folder)
        except BaseException as error:
            shutil.rmtree(aside, ignore_errors=True)
            # Another run was faster: its folder has the same content.
            if not (isinstance(error, OSError) and folder.is_dir()):
                raise
    except (OSError, pl.exceptions.PolarsError) as error:
        _log.warning("prepared data are not cached in %s: %s", folder.parent, error)


def _ids(table: pl.DataFrame) -> np.ndarray:
    ids = table["id"]
    if ids.dtype == pl.String:
        return np.array(ids.to_list(), dtype=np.str_)
    return ids.to_numpy(writable=True)
