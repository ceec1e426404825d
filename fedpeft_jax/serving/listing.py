"""Turns numbers of items and users into frames with original ids and titles."""

import numpy as np
import polars as pl

from fedpeft_jax.experiment.id_tables import IdTables
from fedpeft_jax.serving.names import Names


class Listing:
    """Makes the frames that a model returns.

    Args:
      tables: the ids, titles and histories of the run.

    Attributes:
      items: finds items by their original ids.
      users: finds users by their original ids.
    """

    def __init__(self, tables: IdTables) -> None:
        self._tables = tables
        self._titles = pl.Series("title", tables.titles, dtype=pl.String)
        self.items = Names("item", tables.item_ids, tables.titles)
        self.users = Names("user", tables.user_ids)

    def ranked(
        self, rows: np.ndarray, ranks: np.ndarray, scores: np.ndarray
    ) -> pl.DataFrame:
        """Returns columns `rank`, `item`, `title` and `score`.

        Args:
          rows: int[n], numbers of items.
          ranks: int[n], from 0.
          scores: float32[n].
        """
        columns = [
            pl.Series("rank", ranks + 1, dtype=pl.Int32),
            _ids("item", self._tables.item_ids, rows),
            self._titles.gather(rows),
            pl.Series("score", scores, dtype=pl.Float32),
        ]
        return pl.DataFrame(columns)

    def best(
        self, clients: np.ndarray | None, items: np.ndarray, scores: np.ndarray
    ) -> pl.DataFrame:
        """Returns the best items of clients; items at minus infinity are left out.

        Args:
          clients: int[n]; None leaves out the column `user`.
          items: int[n, k], numbers of items, best first.
          scores: float32[n, k].
        """
        found = scores > -np.inf
        owners, ranks = np.nonzero(found)
        frame = self.ranked(items[found], ranks, scores[found])
        if clients is None:
            return frame
        users = _ids("user", self._tables.user_ids, clients[owners])
        return frame.insert_column(0, users)

    def history(self, client: int) -> pl.DataFrame:
        """Returns columns `item`, `title` and `part` of a client, in time order.

        Args:
          client: the number of the client.
        """
        items = self._tables.items
        place = slice(items.offsets[client], items.offsets[client + 1])
        parts = np.where(self._tables.trains[place], "train", "held_out")
        rows = items.values[place]
        columns = [
            _ids("item", self._tables.item_ids, rows),
            self._titles.gather(rows),
            pl.Series("part", parts.tolist(), dtype=pl.String),
        ]
        return pl.DataFrame(columns)


def _ids(name: str, ids: np.ndarray, rows: np.ndarray) -> pl.Series:
    text = ids.dtype.kind == "U"
    values = ids[rows]
    dtype = pl.String if text else pl.Int64
    return pl.Series(name, values.tolist() if text else values, dtype=dtype)
