"""Caches text encodings on disk by their content, so that each is computed once."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedpeft_jax.core.user_cache import user_cache

SCHEME_VERSION = 1
"""Increase it when the same texts and encoder give other encodings than before."""

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


def encodings_path(
    cache_dir: str | os.PathLike[str] | None,
    identity: Sequence[object],
    texts: Sequence[str],
    scheme: int = SCHEME_VERSION,
) -> Path | None:
    """Returns the path of the cache file of some texts' encodings.

    Args:
      cache_dir: the folder; None for fedpeft_jax/encodings in the user's cache folder.
      identity: JSON values that differ between encoders.
      texts: the item texts.
      scheme: version of the encoding; files of other versions have other names.

    Returns:
      The file's path, or None (and a warning in the log) if there is no home folder.

    Example:
      >>> path = encodings_path("folder", ["tfidf", 0], ["a text"])
      >>> path.parent.name, path.suffix
      ('folder', '.npz')
    """
    base = user_cache("encodings") if cache_dir is None else Path(cache_dir)
    if base is None:
        return None
    content = json.dumps([scheme, list(identity), list(texts)])
    return base / f"{hashlib.sha256(content.encode()).hexdigest()}.npz"


def read(path: Path | None, num_items: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Reads a cache file.

    Returns:
      The encodings float32[I, F] and missing bool[I]; None if there is no file, and
      also, with a warning in the log, if it is damaged or has other contents.
    """
    if path is None:
        return None
    try:
        arrays = read_npz(path)
        encodings, missing = arrays["encodings"], arrays["missing"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        _log.warning("cache file %s is damaged, encoding again: %s", path, error)
        return None
    whole = (
        encodings.ndim == 2
        and encodings.dtype == np.float32
        and missing.dtype == np.bool_
        and len(encodings) == num_items
        and missing.shape == (num_items,)
        and bool(np.isfinite(encodings).all())
    )
    if not whole:
        _log.warning("cache file %s has other contents, encoding again", path)
        return None
    return encodings, missing


def write(path: Path | None, encodings: np.ndarray, missing: np.ndarray) -> None:
    """Writes a cache file atomically; a failure is a warning in the log."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, encodings=encodings, missing=missing)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        _log.warning("encodings are not cached in %s: %s", path.parent, error)
