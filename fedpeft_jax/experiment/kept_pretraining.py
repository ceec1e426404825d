"""Keeps what a run learned from item text, so that a continued run reads it again.

Pretraining would give the same latents on the same machine, and takes some seconds. On
another machine it would give other last digits.
"""

import hashlib
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.cache_folder import Note, read_cached, write_cached
from fedpeft_jax.core.typing import Array, Key
from fedpeft_jax.features import Pretrained
from fedpeft_jax.features.cache import read_npz

_FILE = "pretrained.npz"


class Learned(NamedTuple):
    """A result of pretraining, with what it was computed from.

    Attributes:
      inputs: the result of `inputs_of`.
      pretrained: the result.
    """

    inputs: str
    pretrained: Pretrained


def inputs_of(spec: str, features: int, key: Key, encodings: np.ndarray | Array) -> str:
    """Returns the SHA-256 of everything that a pretrainer computes its result from.

    Args:
      spec: the setting `pretraining`.
      features: D, width of the latents.
      key: the key of the pretraining.
      encodings: float32[I, F].

    Example:
      >>> one, other = jax.random.key(0), jax.random.key(1)
      >>> encodings = np.eye(3, dtype=np.float32)
      >>> inputs_of("a", 2, one, encodings) == inputs_of("a", 2, other, encodings)
      False
    """
    array = np.ascontiguousarray(encodings)
    facts = repr((spec, features, array.dtype.str, array.shape))
    digest = hashlib.sha256(facts.encode())
    digest.update(np.asarray(jax.random.key_data(key)).tobytes())
    digest.update(array.tobytes())
    return digest.hexdigest()


def recall(folder: pathlib.Path | None, inputs: str, note: Note) -> Pretrained | None:
    """Returns the result that a folder holds; None if it has none of these inputs.

    Args:
      folder: the folder that `keep` wrote; None for no folder. If it is damaged, it is
        removed.
      inputs: the result of `inputs_of`.
      note: receives a sentence about a damaged folder.
    """
    if folder is None:
        return None

    def load(path: pathlib.Path, facts: dict[str, Any]) -> Pretrained | None:
        if facts["inputs"] != inputs:
            return None
        arrays = read_npz(path / _FILE)
        return Pretrained(
            latents=jnp.asarray(arrays["latents"]),
            explained_variance=float(arrays["explained_variance"]),
            latent_spread=arrays["latent_spread"],
            loss_history=arrays["loss_history"],
        )

    return read_cached(folder, load, note)


def keep(folder: pathlib.Path, learned: Learned, note: Note) -> None:
    """Writes a result to a folder, unless it exists; a failure is a note."""

    def save(path: pathlib.Path) -> None:
        fields: dict[str, Any] = learned.pretrained._asdict()
        np.savez(path / _FILE, **fields)

    if not folder.is_dir():
        write_cached(folder, save, {"inputs": learned.inputs}, note)
