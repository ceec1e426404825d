"""Rows of different lengths in one flat array: every client's items, without padding.

The histories of a data set, the training items of a split and what the clients hold on
the device all have this form. Nothing of size users x items, and no padded copy of the
data, ever exists.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fedpeft_jax.core.typing import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths. Row ``r`` is ``values[offsets[r]:offsets[r + 1]]``.

    It is a pytree, so it passes through ``jax.jit`` after `to_device` has moved it to
    the device. On the host both arrays are NumPy arrays.

    Attributes:
      values: [n], the rows one after the other.
      offsets: int64[R + 1] on the host and int32[R + 1] on the device, ascending from 0
        to n.

    Example:
      >>> ragged = Ragged.from_rows([[7, 9], [], [8]])
      >>> ragged.num_rows, ragged.counts.tolist(), ragged.row(0).tolist()
      (3, [2, 0, 1], [7, 9])
      >>> ragged.owners.tolist()
      [0, 0, 2]
    """

    values: Any
    offsets: Any

    @classmethod
    def from_counts(cls, values: np.ndarray, counts: np.ndarray) -> "Ragged":
        """Makes rows from their concatenated values and their lengths, int[R]."""
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return cls(values, offsets)

    @classmethod
    def from_rows(cls, rows: Sequence[Any], dtype: Any = np.int32) -> "Ragged":
        """Returns the given rows, each a sequence of numbers."""
        arrays = [np.asarray(row, dtype) for row in rows]
        values = np.concatenate([np.empty(0, dtype), *arrays])
        return cls.from_counts(values, np.array([len(row) for row in arrays], np.int64))

    @property
    def num_rows(self) -> int:
        """R, the number of rows."""
        return len(self.offsets) - 1

    @property
    def counts(self) -> Any:
        """int[R], the length of each row."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def owners(self) -> np.ndarray:
        """int64[n], the row that each value belongs to (host only)."""
        return np.repeat(np.arange(self.num_rows), self.counts)

    @property
    def positions(self) -> np.ndarray:
        """int64[n], the position of each value within its row (host only).

        Example:
          >>> Ragged.from_rows([[7, 9], [], [8]]).positions.tolist()
          [0, 1, 0]
        """
        return np.arange(len(self.values)) - np.repeat(self.offsets[:-1], self.counts)

    def row(self, index: int) -> Any:
        """Returns the values of one row (host only)."""
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def keep_values(self, keep: np.ndarray) -> "Ragged":
        """Returns the same rows with the values that a mask selects (host only).

        Args:
          keep: bool[n], the mask.
        """
        counts = np.bincount(self.owners[keep], minlength=self.num_rows)
        return Ragged.from_counts(self.values[keep], counts)

    def keep_rows(self, keep: np.ndarray) -> "Ragged":
        """Returns the rows that a mask, bool[R], selects (host only)."""
        values = self.values[np.repeat(keep, self.counts)]
        return Ragged.from_counts(values, self.counts[keep])

    def to_device(self) -> "Ragged":
        """Returns the rows as int32 arrays on the default device."""
        return Ragged(
            jnp.asarray(self.values, jnp.int32), jnp.asarray(self.offsets, jnp.int32)
        )


def sort_rows(ragged: Ragged, bound: int) -> Ragged:
    """Sorts the values of each row, all rows in one sort.

    Args:
      ragged: int32 values, at least 0.
      bound: a number above every value.

    Returns:
      The same rows with ascending int32 values.

    Example:
      >>> sort_rows(Ragged.from_rows([[5, 3], [0]]), bound=6).values.tolist()
      [3, 5, 0]
    """
    # One int64 key per value sorts several times faster than a lexicographic sort.
    starts = ragged.owners * bound
    keys = np.sort(starts + ragged.values)
    return Ragged((keys - starts).astype(np.int32), ragged.offsets)


def read_row(ragged: Ragged, row: Array, length: int, fill: int) -> tuple[Array, Array]:
    """Reads one row into an array of static length; works under `jit` and `vmap`.

    Args:
      ragged: on the device.
      row: int32[], index of the row; an index of R or more gives an empty row.
      length: N, at least the row's length.
      fill: value of the entries after the end of the row.

    Returns:
      The values [N] and the row's length int32[].

    Example:
      >>> ragged = Ragged.from_rows([[7, 9], [8]]).to_device()
      >>> values, count = read_row(ragged, jnp.int32(1), length=3, fill=-1)
      >>> values.tolist(), int(count)
      ([8, -1, -1], 1)
    """
    # Beyond the rows both ends are the last offset, so that nothing is read.
    start = ragged.offsets.at[row].get(mode="clip")
    count = ragged.offsets.at[row + 1].get(mode="clip") - start
    if not ragged.values.shape[0]:
        return jnp.full(length, fill, ragged.values.dtype), count
    index = jnp.arange(length, dtype=jnp.int32)
    window = ragged.values.at[start + index].get(mode="clip")
    return jnp.where(index < count, window, fill), count
