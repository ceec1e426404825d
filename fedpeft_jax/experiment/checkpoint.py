"""Saves and loads the variables of a model with Orbax."""

import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import PyTree


def save_variables(path: pathlib.Path, variables: PyTree) -> None:
    """Writes a tree of arrays to a folder, completely or not at all.

    Args:
      path: the folder, which is replaced if it exists.
      variables: a tree of arrays.

    Raises:
      InputError: if the folder cannot be written (permissions, full disk).

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   save_variables(pathlib.Path(folder) / "final", {"B": np.eye(2)})
      ...   load_variables(pathlib.Path(folder) / "final")["B"].tolist()
      [[1.0, 0.0], [0.0, 1.0]]
    """
    host = jax.tree.map(np.asarray, variables)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The threads of Orbax's asynchronous checkpointer would outlive a failure.
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            checkpointer.save(
                path.absolute(), args=ocp.args.StandardSave(host), force=True
            )
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot write {path}: {error}; free some space or set `out`"
        ) from error


def load_variables(path: pathlib.Path) -> PyTree:
    """Returns a tree of NumPy arrays that `save_variables` wrote.

    Args:
      path: the folder.

    Raises:
      InputError: if the folder does not exist or is damaged.
    """
    if not path.is_dir():
        raise InputError(f"no variables at {path}: name a folder under checkpoints/")
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(path.absolute()).item_metadata
            if metadata is None:  # Orbax only warns.
                raise ValueError("its metadata are damaged")
            target = jax.tree.map(lambda m: np.empty(m.shape, m.dtype), metadata.tree)
            return checkpointer.restore(path.absolute(), target)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"cannot read the variables at {path}: {error}; save them again"
        ) from error
