"""Folders of a cache: complete or absent, and never read if they are damaged.

A folder is written under another name and then renamed, so several runs may write it at
once. It has a manifest (`core/manifest.py`). A folder that cannot be read or written
causes a note and no error, because what it holds can be computed again.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from fedpeft_jax.core.manifest import read_manifest, write_manifest

Note = Callable[[str], None]
"""Receives one sentence."""

T = TypeVar("T")


def read_cached(
    folder: Path, load: Callable[[Path, dict[str, Any]], T], note: Note
) -> T | None:
    """Returns what a folder of a cache holds; None if it is absent or damaged.

    Args:
      folder: the folder. If it is damaged, it is removed.
      load: returns the content, from the folder and the facts in its manifest; raises
        ValueError or OSError if it is not what is wanted.
      note: receives a sentence about a damaged folder.
    """
    if not os.path.lexists(folder):
        return None
    try:
        return load(folder, read_manifest(folder))
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        note(f"cache folder {folder} is damaged and is made again: {reason}")
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.unlink(missing_ok=True)  # a file or a link in its place
    return None


def write_cached(
    folder: Path, write: Callable[[Path], None], facts: Mapping[str, Any], note: Note
) -> None:
    """Writes a folder of a cache, completely or not at all.

    Args:
      folder: the folder; if it exists, another run was faster, and it is kept.
      write: writes the files into an empty folder that it is given.
      facts: JSON values that are kept in the manifest.
      note: receives a sentence if the folder cannot be written.

    Example:
      >>> with tempfile.TemporaryDirectory() as name:
      ...     folder = Path(name, "cache", "one")
      ...     write = lambda aside: (aside / "text").write_text("content")
      ...     write_cached(folder, write, {}, print)
      ...     read_cached(folder, lambda f, facts: (f / "text").read_text(), print)
      'content'
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=folder.parent, suffix=".tmp"))
        try:
            write(aside)
            write_manifest(aside, facts)
            aside.rename(folder)
        except BaseException as error:
            shutil.rmtree(aside, ignore_errors=True)
            # Another run was faster: its folder has the same content.
            if not (isinstance(error, OSError) and folder.is_dir()):
                raise
    except (OSError, ValueError) as error:
        note(f"{folder.parent} cannot be written, so nothing is cached there: {error}")
