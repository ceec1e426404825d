"""What is ranked in one pass over the clients: one target each, or several together."""

from typing import Protocol

import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.ragged import Ragged
from fedpeft_jax.core.typing import Array, History
from fedpeft_jax.evaluation.comparisons import (
    compare_several_with_candidates,
    compare_several_with_catalogue,
    compare_with_candidates,
    compare_with_catalogue,
)
from fedpeft_jax.evaluation.ranks import AnyRanks, JointRanks, Ranks


class Targets(Protocol):
    """The targets of all evaluated clients, and their ranks as they are found."""

    def ids(self, block: np.ndarray) -> np.ndarray:
        """Returns int32[B, S], the targets of a block of rows, then the candidates."""

    def rank(
        self,
        scores: Array,
        ids: Array | None,
        block: np.ndarray,
        size: int,
        history: History,
    ) -> None:
        """Ranks the targets of a block by their scores.

        Args:
          scores: float32[B, S] of ids, or float32[B, I] of all items.
          ids: the result of `ids` on the device; None for all items.
          block: int64[B], rows of the evaluated clients.
          size: how many of the rows count.
          history: training items, which are left out of all items.
        """

    def ranks(self) -> AnyRanks:
        """Returns the ranks, after all blocks."""


class OneTarget(Targets):
    """One target per client.

    Args:
      held: int32[E], the target of each evaluated client, -1 for none.
      others: int32[E], an item that is left out of all items, -1 for none.
      candidates: int32[E, C], -1 is padding.
    """

    def __init__(
        self, held: np.ndarray, others: np.ndarray, candidates: np.ndarray
    ) -> None:
        self._has = held >= 0
        self._targets = np.maximum(held, 0)  # clients without one are left out below
        self._others = others
        self._candidates = candidates
        self._above, self._ties = np.empty((2, len(held)), np.int64)

    def ids(self, block: np.ndarray) -> np.ndarray:
        own, rivals = self._targets[block, None], self._candidates[block]
        return np.concatenate([own, np.where(rivals < 0, own, rivals)], axis=1)

    def rank(
        self,
        scores: Array,
        ids: Array | None,
        block: np.ndarray,
        size: int,
        history: History,
    ) -> None:
        # Compared in a separate program: if it were fused with the scores, an item
        # could be computed twice, be rounded differently, and not tie with itself.
        if ids is not None:
            found = compare_with_candidates(scores, ids)
        else:
            found = compare_with_catalogue(
                scores, self._targets[block], self._others[block], history
            )
        # Waiting for the result keeps a single block in memory.
        rows = block[:size]
        self._above[rows], self._ties[rows] = np.asarray(found)[:, :size]

    def ranks(self) -> Ranks:
        return Ranks(self._above[self._has], self._ties[self._has])


class SeveralTargets(Targets):
    """Several targets per client, which are ranked together.

    Args:
      held: int32 values in E rows, the targets of each evaluated client.
      others: int32 values in E rows, items that are left out of all items.
      candidates: int32[E, C], -1 is padding; candidates that are a target of their
        client are left out.
      num_items: I, the number of items.
      room: int64[E], the columns of targets in a block with this client, at least as
        many as it has. It decides the shapes that are traced.
    """

    def __init__(
        self,
        held: Ragged,
        others: Ragged,
        candidates: np.ndarray,
        num_items: int,
        room: np.ndarray,
    ) -> None:
        self._held, self._others, self._room = held, others, room
        rows = np.arange(len(candidates), dtype=np.int64)[:, None]
        own = held.owners * np.int64(num_items) + held.values
        repeated = np.isin(rows * num_items + candidates, own) & (candidates >= 0)
        self._candidates = np.where(repeated, np.int32(-1), candidates)
        self._most_others = max(int(others.counts.max(initial=0)), 1)
        self._above, self._ties = np.empty((2, len(held.values)), np.int64)

    def ids(self, block: np.ndarray) -> np.ndarray:
        return np.maximum(self._padded_ids(block), 0)

    def rank(
        self,
        scores: Array,
        ids: Array | None,
        block: np.ndarray,
        size: int,
        history: History,
    ) -> None:
        width = int(self._room[block[0]])
        most = jnp.int32(self._held.counts[block].max())
        # In a separate program, as above.
        if ids is not None:
            mask = jnp.asarray(self._padded_ids(block) >= 0)
            found = compare_several_with_candidates(scores, mask, most, width)
        else:
            own = np.maximum(_padded(self._held, block, width), 0)
            others = _padded(self._others, block, self._most_others)
            found = compare_several_with_catalogue(scores, own, most, others, history)
        rows = block[:size]
        places = self._held.offsets[rows][:, None] + np.arange(width)
        real = np.arange(width) < self._held.counts[rows][:, None]
        values = np.asarray(found)[:, :size]
        self._above[places[real]], self._ties[places[real]] = values[:, real]

    def ranks(self) -> AnyRanks:
        counts = self._held.counts[self._held.counts > 0]
        if (counts == 1).all():
            return Ranks(self._above, self._ties)
        return JointRanks(self._above, self._ties, counts)

    def _padded_ids(self, block: np.ndarray) -> np.ndarray:
        own = _padded(self._held, block, int(self._room[block[0]]))
        return np.concatenate([own, self._candidates[block]], axis=1)


def _padded(rows: Ragged, block: np.ndarray, width: int) -> np.ndarray:
    """Returns int32[B, width], the values of some rows; -1 is padding."""
    place = np.arange(width)
    index = np.minimum(rows.offsets[block][:, None] + place, len(rows.values) - 1)
    values = rows.values[index] if len(rows.values) else np.zeros(index.shape, np.int32)
    real = place < rows.counts[block][:, None]
    return np.where(real, values, -1).astype(np.int32)
