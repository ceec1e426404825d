"""Reads item encodings from a file, in the order of the catalogue."""

import os
from collections.abc import Iterable

import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.features.cache import read_npz
from fedpeft_jax.features.text import TextFeatures


def load_text_embeddings(
    path: str | os.PathLike[str],
    item_ids: np.ndarray,
    optional: np.ndarray | None = None,
) -> TextFeatures:
    """Reads an .npz file of item embeddings, in the order of the catalogue.

    Args:
      path: an .npz file with ``item_id`` [n] (strings or integers) and ``embedding``
        [n, F] (floating point). Items outside the catalogue are ignored.
      item_ids: [I], the catalogue's original ids; ids are compared as strings.
      optional: bool[I], items that the file may lack; they get the mean of the others.
        None if it must have all items.

    Returns:
      A ``TextFeatures`` with the embeddings, unchanged but in float32.

    Raises:
      InputError: if the file does not exist, is damaged or has another layout, repeats
        an id, lacks an item, or has NaN or infinite values for an item.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = os.path.join(folder, "text.npz")
      ...     np.savez(path, item_id=["7", "3"], embedding=[[1.0, 0.0], [0.0, 2.0]])
      ...     load_text_embeddings(path, np.array([3, 7])).encodings.tolist()
      [[0.0, 2.0], [1.0, 0.0]]
    """
    name = f"`text_embeddings={os.fspath(path)}`"
    layout = "an .npz file with item_id [n] (str) and embedding [n, features] (float)"
    try:
        arrays = read_npz(path)
    except FileNotFoundError as error:
        raise InputError(f"{name}: no such file: pass {layout}") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{name} cannot be read ({reason}): pass {layout}") from error
    except ValueError as error:
        raise InputError(
            f"{name} is damaged, or not an .npz file without pickled objects: pass "
            f"{layout}"
        ) from error
    absent = [key for key in ("item_id", "embedding") if key not in arrays]
    if absent:
        raise InputError(f"{name} has no array {' and '.join(absent)}: pass {layout}")
    ids, embedding = arrays["item_id"], arrays["embedding"]
    if (
        ids.ndim != 1
        or embedding.ndim != 2
        or len(ids) != len(embedding)
        or embedding.shape[1] < 1
        or not np.issubdtype(embedding.dtype, np.floating)
    ):
        raise InputError(
            f"{name}: item_id is {ids.dtype}{list(ids.shape)} and embedding "
            f"{embedding.dtype}{list(embedding.shape)}: pass {layout}"
        )
    rows: dict[str, int] = {}
    repeated: list[str] = []
    for row, item in enumerate(_as_strings(ids)):
        if rows.setdefault(item, row) != row:
            repeated.append(item)
    if repeated:
        raise InputError(
            f"{name} repeats item ids ({_some(repeated)}): keep one row per item"
        )
    wanted = _as_strings(item_ids)
    absent_items = np.array([item not in rows for item in wanted], bool)
    may_lack = np.zeros(len(wanted), bool) if optional is None else optional
    lacking = [wanted[place] for place in np.flatnonzero(absent_items & ~may_lack)]
    if lacking or absent_items.all():
        raise InputError(
            f"{name} lacks {len(lacking)} of {len(wanted)} items ({_some(lacking)}): "
            "encode them too, and check that the ids are those of the data set"
        )
    # A float64 beyond float32's range becomes infinite; the check below reports it.
    with np.errstate(over="ignore"):
        found = [rows.get(item, -1) for item in wanted]
        encodings = embedding[found].astype(np.float32)
    encodings[absent_items] = encodings[~absent_items].mean(axis=0)
    finite = np.isfinite(encodings).all(axis=1)
    if not finite.all():
        broken = [wanted[row] for row in np.flatnonzero(~finite)]
        raise InputError(
            f"{name} has NaN or infinite values for {len(broken)} items "
            f"({_some(broken)}): encode these items again"
        )
    return TextFeatures(encodings, absent_items, os.fspath(path))


def _as_strings(ids: np.ndarray) -> list[str]:
    return [
        item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)
        for item in np.asarray(ids).tolist()
    ]


def _some(ids: Iterable[str]) -> str:
    listed = list(ids)
    more = ", ..." if len(listed) > 3 else ""
    return ", ".join(repr(item) for item in listed[:3]) + more
