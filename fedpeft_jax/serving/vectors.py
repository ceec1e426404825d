"""The vectors of items and users, as a model computes them from its variables."""

from typing import Any

import jax
import numpy as np

from fedpeft_jax.backbones import Backbone
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.roles import FROZEN, PRIVATE, ROWS, SHARED
from fedpeft_jax.core.typing import Array, History, PyTree, Variables


def item_vectors(model: Backbone, variables: Variables) -> np.ndarray:
    """Returns the embeddings of all items, full and compressed part added.

    Args:
      model: the recommender.
      variables: its variables by collection.

    Returns:
      float32[I, D].
    """
    server = {role: variables[role] for role in (SHARED, ROWS, FROZEN)}

    @jax.jit
    def compute(server: PyTree) -> Any:
        return model.apply(server, method=lambda module: module.item_embedding())

    return np.asarray(compute(server), np.float32)


def user_vector_of(model: Backbone, variables: Variables, history: History) -> Array:
    """Returns the vector of one user, float32[D].

    Args:
      model: its method `user_embedding(history)` is used if it has one; otherwise the
        vector is the private variable `user`.
      variables: its variables by collection, the private ones of this user.
      history: the user's training items.
    """
    found: Any = variables[PRIVATE].get("user")
    if hasattr(model, "user_embedding"):
        found = model.apply(variables, history, method="user_embedding")
    if found is None:
        raise InputError(
            f"{type(model).__name__} has no user vectors, because every user has a "
            "score function instead: use `score`, `recommend` or `similar_items`"
        )
    return found


def nearest(vectors: np.ndarray, row: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows with the largest cosine to one row, without that row.

    Args:
      vectors: float32[n, D].
      row: the number of the row.
      k: how many, at least 1.

    Returns:
      int64[min(k, n - 1)] and the cosines float32[...], descending.

    Example:
      >>> rows, cosines = nearest(np.array([[1.0, 0], [0, 1], [2, 1]]), 0, 2)
      >>> rows.tolist(), cosines.round(2).tolist()
      ([2, 1], [0.89, 0.0])
    """
    norms = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
    cosines = (vectors @ vectors[row]) / (norms * norms[row])
    others = np.delete(np.arange(len(vectors)), row)
    order = others[np.argsort(-cosines[others], kind="stable")][:k]
    return order, cosines[order]
