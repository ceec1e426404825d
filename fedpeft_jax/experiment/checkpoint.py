"""Saves and loads trees of arrays with Orbax, completely or not at all.

A saved tree is a folder with what Orbax wrote and a manifest (`core/manifest.py`) with
facts that the caller adds. The folder is written under another name and then renamed. A
folder that differs from its manifest is not read.
"""

import errno
import pathlib
import re
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.manifest import read_manifest, write_manifest
from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.experiment.quiet_orbax import silence_orbax

_TREE = "tree"


class Saved(NamedTuple):
    """A tree that was read from a folder.

    Attributes:
      tree: nested dictionaries of NumPy arrays.
      facts: JSON values that were saved with the tree.
    """

    tree: PyTree
    facts: dict[str, Any]


def save_tree(
    path: pathlib.Path, tree: PyTree, facts: Mapping[str, Any] | None = None
) -> None:
    """Writes nested dictionaries of arrays to a folder, completely or not at all.

    Args:
      path: the folder, which is replaced if it exists. Its parent must exist or have an
        existing parent.
      tree: nested dictionaries of arrays.
      facts: JSON values that are kept in the manifest.

    Raises:
      InputError: if the folder cannot be written (permissions, full disk, or a run
        folder that was removed).

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   path = pathlib.Path(folder) / "final"
      ...   save_tree(path, {"B": np.eye(2)}, {"round": 3})
      ...   load_tree(path).facts
      {'round': 3}
    """
    silence_orbax()
    host = jax.tree.map(np.asarray, tree)
    aside = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        created = aside.stat().st_ino
        # The threads of Orbax's asynchronous checkpointer would outlive a failure.
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            checkpointer.save(
                (aside / _TREE).absolute(), args=ocp.args.StandardSave(host)
            )
        if aside.stat().st_ino != created:  # Orbax makes parents that are missing.
            raise OSError(errno.ENOENT, "the folder was removed or renamed meanwhile")
        write_manifest(aside, facts or {})
        _replace_folder(aside, path)
    except (OSError, ValueError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise InputError(
            f"cannot write {path}: {_reason(error)}; free some space or set `out`"
        ) from error


def load_tree(path: pathlib.Path) -> Saved:
    """Returns a tree that `save_tree` wrote, after a check of all its files.

    Args:
      path: the folder.

    Raises:
      InputError: if the folder does not exist or is damaged.
    """
    if not path.is_dir():
        raise InputError(f"no variables at {path}: name a folder under checkpoints/")
    try:
        facts = read_manifest(path)
        source = (path / _TREE).absolute()
        with ocp.StandardCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(source).item_metadata
            if metadata is None:  # Orbax only warns.
                raise ValueError("its metadata are damaged")
            target = jax.tree.map(lambda m: np.empty(m.shape, m.dtype), metadata.tree)
            return Saved(checkpointer.restore(source, target), facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"cannot read the variables at {path}: {reason}; save them again"
        ) from error


def save_variables(path: pathlib.Path, variables: PyTree) -> None:
    """Writes a model's variables to a folder, completely or not at all.

    Args:
      path: the folder, which is replaced if it exists.
      variables: the variables by collection.

    Raises:
      InputError: if the folder cannot be written (permissions, full disk).

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   save_variables(pathlib.Path(folder) / "final", {"B": np.eye(2)})
      ...   load_variables(pathlib.Path(folder) / "final")["B"].tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    save_tree(path, variables)


def load_variables(path: pathlib.Path) -> PyTree:
    """Returns a tree of NumPy arrays that `save_variables` wrote.

    Args:
      path: the folder.

    Raises:
      InputError: if the folder does not exist or is damaged.
    """
    return load_tree(path).tree


def _reason(error: Exception) -> str:
    """Returns the reason of a failed write; Orbax names all files around it."""
    text = getattr(error, "strerror", None) or " ".join(str(error).split())
    found = re.search(r": ([^:]+) \[os_error_code", text)
    return found[1] if found else text[:300]


def _replace_folder(new: pathlib.Path, path: pathlib.Path) -> None:
    """Renames a folder to another one, which it replaces."""
    try:
        new.rename(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
        new.rename(path)
        shutil.rmtree(old, ignore_errors=True)
