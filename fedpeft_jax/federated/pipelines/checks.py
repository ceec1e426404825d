"""Checks that stages keep their contract, on shapes alone, before anything is compiled.

A stage that decodes another shape or type would otherwise be broadcast silently.
"""

from typing import Any

import jax
import jax.numpy as jnp

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.roles import ROWS
from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.federated.pipelines.base import Download, Upload
from fedpeft_jax.federated.updates import ClientUpdate, dense_update


def check_upload(
    upload: Upload, server: PyTree, num_items: int
) -> tuple[ClientUpdate, dict[str, Any]]:
    """Returns the shapes of an upload's payload and of its figures.

    Args:
      upload: the upload pipeline.
      server: the server's variables `{'params': ..., 'rows': ...}`, or their shapes.
      num_items: I.

    Raises:
      InputError: if `encode` does not return a `ClientUpdate`, a state like the one of
        `init` and scalar float32 figures, or `decode` does not return the structure,
        shapes and types of the update.
    """
    update = jax.eval_shape(lambda s: dense_update(s, num_items), server)
    state = jax.eval_shape(upload.init, server)
    key = jax.eval_shape(lambda: jax.random.key(0))
    found = jax.eval_shape(upload.encode, update, state, key)
    if not isinstance(found, tuple) or len(found) != 3:
        raise InputError(
            "an upload stage's `encode` must return (payload, state, figures): correct "
            "the stage"
        )
    payload, new_state, figures = found
    if not isinstance(payload, ClientUpdate):
        raise InputError(
            "an upload stage's payload must be a ClientUpdate, got "
            f"{type(payload).__name__}: return update._replace(shared=..., rows=...)"
        )
    _same("an upload stage's state", "the one that `init` returns", new_state, state)
    decoded = jax.eval_shape(upload.decode, payload)
    _same("what an upload stage decodes", "the update", decoded, update)
    for name, value in figures.items():
        if (value.shape, value.dtype) != ((), jnp.float32):
            raise InputError(
                f"figure {name!r} of an upload stage must be a scalar float32, got "
                f"{value.dtype}{list(value.shape)}: reduce and cast it"
            )
    return payload, dict(figures)


def upload_of_rows(upload: Upload, server: PyTree, num_rows: int) -> ClientUpdate:
    """Returns the shapes of the payload of an update with some number of rows.

    Args:
      upload: the upload pipeline.
      server: the server's variables `{'params': ..., 'rows': ...}`, or their shapes.
      num_rows: the number of rows, I for a dense update.

    Raises:
      InputError: as `check_upload`.
    """
    shapes = jax.eval_shape(lambda s: s, server)
    rows = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((num_rows, *x.shape[1:]), x.dtype), shapes[ROWS]
    )
    return check_upload(upload, {**shapes, ROWS: rows}, num_rows)[0]


def check_download(download: Download, server: PyTree) -> PyTree:
    """Returns the shapes of a download's payload.

    Args:
      download: the download pipeline.
      server: the server's variables `{'params': ..., 'rows': ...}`, or their shapes.

    Raises:
      InputError: if `decode` does not return the structure, shapes and types of the
        server's variables.
    """
    key = jax.eval_shape(lambda: jax.random.key(0))
    payload = jax.eval_shape(download.encode, server, key)
    decoded = jax.eval_shape(download.decode, payload)
    _same("what a download stage decodes", "the server's variables", decoded, server)
    return payload


def _same(what: str, expected: str, found: PyTree, like: PyTree) -> None:
    structures: list[Any] = [jax.tree.structure(tree) for tree in (found, like)]
    if structures[0] != structures[1]:
        raise InputError(
            f"{what} must have the structure of {expected}: correct the stage"
        )
    pairs = jax.tree.leaves_with_path(found), jax.tree.leaves(like)
    for (path, one), other in zip(*pairs, strict=True):
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            raise InputError(
                f"{what} must have the shapes and types of {expected}; "
                f"{jax.tree_util.keystr(path)} is {one.dtype}{list(one.shape)} in "
                f"place of {other.dtype}{list(other.shape)}: correct the stage"
            )
