"""Caches text encodings on disk by their content, so that each is computed once."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedpeft_jax.core.cache_folder import Note, read_cached, write_cached
from fedpeft_jax.core.user_cache import user_cache

SCHEME_VERSION = 1
"""Increase it when the same texts and encoder give other encodings than before."""

_FILE = "encodings.npz"

_log = logging.getLogger(__name__)


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads every array of an .npz file.

    Raises:
      OSError: if the file cannot be opened.
      ValueError: if it is not an .npz file, is damaged, or holds pickled objects.
    """
    with open(path, "rb") as file:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
        except Exception as error:  # zip, zlib and pickle errors share no base
            raise ValueError(f"{type(error).__name__}: {error}") from error


def folder_fingerprint(folder: str | os.PathLike[str]) -> list[list[str | int]]:
    """Returns name, size and modification time of every file in a model's folder.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     _ = Path(folder, "weights").write_bytes(b"abc")
      ...     [entry[:2] for entry in folder_fingerprint(folder)]
      [['weights', 3]]
    """
    root = Path(folder)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return [
        [path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns]
        for path in files
        for stat in (path.stat(),)
    ]


def encodings_folder(
    cache_dir: str | os.PathLike[str] | None,
    identity: Sequence[object],
    texts: Sequence[str],
    scheme: int = SCHEME_VERSION,
    note: Note | None = None,
) -> Path | None:
    """Returns the cache folder of some texts' encodings.

    Args:
      cache_dir: the folder; None for fedpeft_jax/encodings in the user's cache folder.
      identity: JSON values that differ between encoders.
      texts: the item texts.
      scheme: version of the encoding; folders of other versions have other names.
      note: receives a sentence if there is no home folder; None for the log.

    Returns:
      The folder's path, or None if there is no home folder.

    Example:
      >>> path = encodings_folder("folder", ["tfidf", 0], ["a text"])
      >>> path.parent.name, len(path.name)
      ('folder', 64)
    """
    base = user_cache("encodings", note) if cache_dir is None else Path(cache_dir)
    if base is None:
        return None
    content = json.dumps([scheme, list(identity), list(texts)])
    return base / hashlib.sha256(content.encode()).hexdigest()


def read(
    folder: Path | None, num_items: int, note: Note | None = None
) -> tuple[np.ndarray, np.ndarray] | None:
    """Reads a cache folder.

    Returns:
      The encodings float32[I, F] and missing bool[I]; None if there is no folder, and
      also, with a note, if it is damaged or has other contents.
    """
    if folder is None:
        return None

    def load(path: Path, facts: object) -> tuple[np.ndarray, np.ndarray]:
        arrays = read_npz(path / _FILE)
        encodings, missing = arrays["encodings"], arrays["missing"]
        whole = (
            encodings.ndim == 2
            and encodings.dtype == np.float32
            and missing.dtype == np.bool_
            and len(encodings) == num_items
            and missing.shape == (num_items,)
            and bool(np.isfinite(encodings).all())
        )
        if not whole:
            raise ValueError("it has other contents")
        return encodings, missing

    return read_cached(folder, load, note or _log.warning)


def write(
    folder: Path | None,
    encodings: np.ndarray,
    missing: np.ndarray,
    note: Note | None = None,
) -> None:
    """Writes a cache folder, completely or not at all; a failure is a note."""
    if folder is None:
        return

    def save(path: Path) -> None:
        np.savez(path / _FILE, encodings=encodings, missing=missing)

    write_cached(folder, save, {}, note or _log.warning)
