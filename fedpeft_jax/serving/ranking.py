"""Scores and ranks items for many users, in blocks of fixed shapes.

Memory does not grow with users x items, and the number of shapes that are compiled
stays small: blocks have a power of two users, and histories are padded to one of a few
lengths.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.backbones import Backbone
from fedpeft_jax.core.ragged import Ragged
from fedpeft_jax.core.roles import FROZEN, PRIVATE, ROWS, SHARED, gather_rows
from fedpeft_jax.core.typing import Array, History, PyTree
from fedpeft_jax.evaluation import model_scores
from fedpeft_jax.serving.vectors import user_vector_of

# Scores and history items per block, so that the activations of a network stay small.
_BLOCK = 2**17
_SHORTEST, _GROWTH = 32, 4


class Best(NamedTuple):
    """The best items of some users.

    Attributes:
      scores: float32[n, k], descending; minus infinity for an item that is left out.
      items: int32[n, k], the numbers of the items.
    """

    scores: np.ndarray
    items: np.ndarray


class _Block(NamedTuple):
    """Users that are scored at once.

    Attributes:
      rows: int64[b], which of the users these are; fewer than B if users fill up.
      clients: int32[B], their numbers.
      ids: int32[B, N], what they interacted with.
      trains: bool[B, N], whether it is in the history that the model reads.
      leaves_out: bool[B, N], whether it is left out of the ranking.
    """

    rows: np.ndarray
    clients: np.ndarray
    ids: np.ndarray
    trains: np.ndarray
    leaves_out: np.ndarray

    @property
    def history(self) -> History:
        """The items that the model reads."""
        return History(jnp.asarray(self.ids), jnp.asarray(self.trains))


class Ranking:
    """Scores and ranks all items by a model.

    Args:
      model: the recommender.
      num_items: I, the number of items.

    Example:
      >>> from fedpeft_jax.backbones import FedMF
      >>> from fedpeft_jax.embeddings import ItemEmbedding
      >>> model = FedMF(item_embedding=ItemEmbedding(num_items=3, features=1))
      >>> variables = {
      ...     "params": {},
      ...     "rows": {"item_embedding": {"full": jnp.array([[1.0], [3.0], [2.0]])}},
      ...     "frozen": {},
      ...     "private": {"user": jnp.array([[1.0], [-1.0]])},
      ... }
      >>> items, trains = Ragged.from_rows([[1], []]), np.array([True])
      >>> ranking = Ranking(model, num_items=3)
      >>> ranking.best(variables, items, trains, np.array([0, 1]), 2, trains).items
      array([[2, 0], [0, 2]], dtype=int32)
    """

    def __init__(self, model: Backbone, num_items: int) -> None:
        self._num_items = num_items
        score = model_scores(model)

        @functools.partial(jax.jit, static_argnames="k")
        def best(
            variables: PyTree,
            clients: Array,
            history: History,
            left_out: Array,
            k: int,
        ) -> tuple[Array, Array]:
            scores = score(variables, clients, history, None)
            places = jnp.arange(len(clients))[:, None], left_out
            scores = scores.at[places].set(-jnp.inf, mode="drop")
            return jax.lax.top_k(scores, k)

        @jax.jit
        def vectors(variables: PyTree, clients: Array, history: History) -> Array:
            server = {role: variables[role] for role in (SHARED, ROWS, FROZEN)}

            def one(private: PyTree, history: History) -> Array:
                return user_vector_of(model, {**server, PRIVATE: private}, history)

            return jax.vmap(one)(gather_rows(variables[PRIVATE], clients), history)

        self._best, self._score, self._vectors = best, jax.jit(score), vectors

    def best(
        self,
        variables: PyTree,
        items: Ragged,
        trains: np.ndarray,
        clients: np.ndarray,
        k: int,
        leaves_out: np.ndarray,
    ) -> Best:
        """Returns the k best items of each client.

        Args:
          variables: the model's variables by collection, private ones [U, ...].
          items: int32 values [nnz] in U rows, what each client interacted with.
          trains: bool[nnz], whether the interaction is in the history that the model
            reads.
          clients: int[n], the clients to rank for.
          k: how many items, at least 1.
          leaves_out: bool[nnz], whether the item is left out of the ranking.

        Returns:
          The min(k, I) best items.
        """
        k = min(k, self._num_items)
        wide = min(_power(max(k, 16)), self._num_items)  # few programs for many k
        scores = np.empty((len(clients), k), np.float32)
        found = np.empty((len(clients), k), np.int32)
        for block in self._blocks(items, trains, clients, leaves_out, self._num_items):
            left_out = np.where(block.leaves_out, block.ids, self._num_items)
            values, ids = self._best(
                variables, block.clients, block.history, left_out, k=wide
            )
            size = len(block.rows)
            scores[block.rows] = np.asarray(values)[:size, :k]
            found[block.rows] = np.asarray(ids)[:size, :k]
        return Best(scores, found)

    def scores(
        self,
        variables: PyTree,
        items: Ragged,
        trains: np.ndarray,
        clients: np.ndarray,
        ids: np.ndarray | None,
    ) -> np.ndarray:
        """Returns the scores of some items, or of all, float32[n, C].

        Args:
          variables: as in `best`.
          items: as in `best`.
          trains: as in `best`.
          clients: int[n].
          ids: int[C], the items to score; None for all.
        """
        width = self._num_items if ids is None else len(ids)
        found = np.empty((len(clients), width), np.float32)
        for block in self._blocks(items, trains, clients, trains, max(width, 1)):
            wanted = ids
            if ids is not None:
                shape = len(block.clients), width
                wanted = np.broadcast_to(ids.astype(np.int32), shape)
            scores = self._score(variables, block.clients, block.history, wanted)
            found[block.rows] = np.asarray(scores)[: len(block.rows)]
        return found

    def vectors(
        self, variables: PyTree, items: Ragged, trains: np.ndarray, clients: np.ndarray
    ) -> np.ndarray:
        """Returns the vectors of clients, float32[n, D].

        Args:
          variables: as in `best`.
          items: as in `best`.
          trains: as in `best`.
          clients: int[n].

        Raises:
          InputError: if the recommender has no user vectors.
        """
        parts: dict[int, np.ndarray] = {}
        for block in self._blocks(items, trains, clients, trains, 1):
            found = np.asarray(self._vectors(variables, block.clients, block.history))
            parts |= zip(block.rows.tolist(), found, strict=False)
        return np.stack([parts[row] for row in range(len(clients))])

    def _blocks(
        self,
        items: Ragged,
        trains: np.ndarray,
        clients: np.ndarray,
        leaves_out: np.ndarray,
        width: int,
    ) -> Iterator[_Block]:
        """Yields blocks of clients with histories of similar lengths."""
        starts, counts = items.offsets[:-1][clients], items.counts[clients]
        lengths = np.full(len(clients), _SHORTEST)
        while (short := lengths < counts).any():
            lengths[short] *= _GROWTH
        for length in np.unique(lengths):
            alike = np.flatnonzero(lengths == length)
            most = 2 ** int(np.log2(max(_BLOCK / (width + length), 1)))
            size = min(most, _power(len(alike)))
            for start in range(0, len(alike), size):
                rows = alike[start : start + size]
                # Repeated clients fill the block, so that its shape is a known one.
                full = np.resize(rows, size)
                places = starts[full, None] + np.arange(length)
                valid = np.arange(length) < counts[full, None]

                ids, used, left_out = (
                    np.where(valid, values.take(places, mode="clip"), 0)
                    for values in (items.values, trains, leaves_out)
                )
                yield _Block(
                    rows,
                    _int32(clients[full]),
                    _int32(ids),
                    used.astype(bool),
                    left_out.astype(bool),
                )


def _int32(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.int32)


def _power(size: int) -> int:
    """Returns the least power of two that is at least `size`."""
    return 1 << max(size - 1, 0).bit_length()
