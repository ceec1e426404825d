"""Writes a model so that programs without this library can use it.

`vectors.safetensors` has the vectors of items and users, `items.parquet` and
`users.parquet` their ids, and `score.jax` the score function as `jax.export` serialises
it, with the model's variables inside and a symbolic number of users.
"""

import contextlib
import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.export  # not part of `import jax`
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.backbones import Backbone
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import Array, History, PyTree
from fedpeft_jax.evaluation import model_scores
from fedpeft_jax.experiment.id_tables import IdTables, frames_of

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
"""What the exported score function can run on."""


def export_model(
    path: str | os.PathLike[str],
    tables: IdTables,
    model: Backbone,
    variables: PyTree,
    vectors: Mapping[str, np.ndarray],
) -> None:
    """Writes vectors, ids and the score function to a folder.

    Args:
      path: the folder, which is made if it does not exist.
      tables: the ids and titles of the run.
      model: the recommender.
      variables: its variables by collection, private ones [U, ...].
      vectors: `item_embeddings` float32[I, D], and `user_embeddings` float32[U, D] for
        a recommender that has them.

    Raises:
      InputError: if the extra `export` is not installed, or the folder cannot be
        written.
    """
    try:
        import flatbuffers  # noqa: F401, jax.export writes with it
        from safetensors.numpy import save
    except ImportError as error:
        raise InputError(
            f"the export needs {error.name}: pip install 'fedpeft_jax[export]'"
        ) from None
    folder = pathlib.Path(path)
    metadata = {"dataset": tables.name, "item_ids": "items.parquet"}
    if "user_embeddings" in vectors:
        metadata["user_ids"] = "users.parquet"
    arrays = {name: np.ascontiguousarray(array) for name, array in vectors.items()}
    files = {
        "vectors.safetensors": save(arrays, metadata=metadata),
        "score.jax": serialize_score(model, variables),
    }
    for name, frame in frames_of(tables).items():
        if name != "histories":  # they belong to the users
            table = io.BytesIO()
            frame.write_parquet(table)
            files[f"{name}.parquet"] = table.getvalue()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            _replace(folder / name, bytes(content))
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise InputError(
            f"cannot write {folder}: {reason}; free some space, or name another folder"
        ) from error


def serialize_score(model: Backbone, variables: PyTree) -> bytes:
    """Returns the score function as bytes for `jax.export.deserialize`.

    The function is `(users int32[b], history int32[b, n]) -> float32[b, I]` for any b
    and n. Users and items are numbers, the rows of the tables. The history has each
    user's training items and then -1; only FedPerGNN reads it.

    Args:
      model: the recommender.
      variables: its variables by collection, private ones [U, ...], which become part
        of the result.
    """
    score = model_scores(model)

    def scores(users: Array, history: Array) -> Array:
        read = History(jnp.maximum(history, 0), history >= 0)
        return score(variables, users, read, None)

    b, n = jax.export.symbolic_shape("b, n")
    exported = jax.export.export(jax.jit(scores), platforms=PLATFORMS)(
        jax.ShapeDtypeStruct((b,), jnp.int32), jax.ShapeDtypeStruct((b, n), jnp.int32)
    )
    found: Any = exported.serialize()
    return bytes(found)


def _replace(path: pathlib.Path, content: bytes) -> None:
    """Writes a file under another name, and then renames it."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
