"""The manifest of a folder: the size and the SHA-256 of every file in it.

`manifest.json` also has facts of the caller, and its own SHA-256. A folder that differs
from its manifest in any byte, or by a file, is not read.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes the manifest of the files in a folder.

    Args:
      folder: the folder, whose files are complete.
      facts: JSON values that are kept in the manifest.

    Raises:
      OSError: if it cannot be written.
      ValueError: if the folder contains a link.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as name:
      ...     _ = Path(name, "a").write_text("content")
      ...     write_manifest(Path(name), {"round": 3})
      ...     read_manifest(Path(name))
      {'round': 3}
    """
    files = {name: _size_and_hash(folder / name) for name in _files_in(folder)}
    content = {"files": files, "facts": dict(facts)}
    with (folder / MANIFEST).open("w", encoding="utf-8") as file:
        json.dump({**content, "sha256": digest_of(content)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path) -> dict[str, Any]:
    """Compares a folder with its manifest, and returns the facts in it.

    Args:
      folder: a folder with a manifest.

    Raises:
      OSError: if a file cannot be read.
      ValueError: if the folder differs from its manifest, or that is damaged.
    """
    content = (folder / MANIFEST).read_text(encoding="utf-8")
    try:
        manifest = json.loads(content)
        digest = manifest.pop("sha256")
        files, facts = manifest["files"], dict(manifest["facts"])
        listed = sorted(files)
    except (AttributeError, KeyError, TypeError, RecursionError, ValueError) as error:
        raise ValueError(f"{MANIFEST} is damaged") from error
    if digest_of(manifest) != digest:
        raise ValueError(f"{MANIFEST} has another content than when it was written")
    # Nothing is opened but what is listed, and no link leads out of the folder.
    if listed != sorted(name for name in _files_in(folder) if name != MANIFEST):
        raise ValueError("its files are not those of its manifest")
    for name, expected in files.items():
        if _size_and_hash(folder / name) != expected:
            raise ValueError(f"{name} has another content than when it was written")
    return facts


def _files_in(folder: Path) -> list[str]:
    """Returns the relative names of all files in a folder; links are an error."""
    found = []
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            if Path(parent, name).is_symlink():
                raise ValueError(f"{name} is a link")
        found += [os.path.relpath(os.path.join(parent, name), folder) for name in names]
    return sorted(found)


def digest_of(content: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a JSON object."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _size_and_hash(path: Path) -> list[int | str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [path.stat().st_size, digest]
