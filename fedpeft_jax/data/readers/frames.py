"""Makes a data set of a table in memory, whichever library it belongs to."""

from typing import Any

import numpy as np
import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.dataset import Dataset, build_dataset
from fedpeft_jax.data.filters import apply_filters
from fedpeft_jax.data.readers.raw import Raw
from fedpeft_jax.data.readers.tables import item_texts, rename_columns
from fedpeft_jax.data.settings import DataSettings


def from_frame(
    interactions: Any, items: Any = None, *, name: str = "table", **settings: Any
) -> Dataset:
    """Makes a data set of interactions in memory, for `Run(config, dataset=...)`.

    Args:
      interactions: a polars data frame, anything with `__arrow_c_stream__` (pandas,
        pyarrow, DuckDB), a dictionary of columns, a structured array, or an array
        [n, 2] of (user, item) or [n, 3] of (user, item, time).
      items: the same for the text of the items; None if there is none.
      name: what the data set is called.
      **settings: the names of the columns, filters and `catalogue`, as in
        `DataSettings`.

    Raises:
      InputError: for what is no table, or a column that is missing.

    Example:
      >>> data = from_frame(np.array([[3, 7, 12], [3, 9, 10], [3, 8, 11]]))
      >>> data
      Dataset('table': 1 users, 3 items, 3 interactions)
      >>> data.item_ids[data.items].tolist()
      [9, 8, 7]
    """
    wanted = DataSettings(dataset="table", **settings)
    frame = rename_columns(name, _as_frame(name, interactions), wanted)
    text = None
    if items is not None:
        text = item_texts(name, _as_frame(name, items), wanted)
    raw = apply_filters(Raw(name, frame, text), wanted)
    return build_dataset(
        raw.name,
        raw.interactions,
        raw.item_text,
        notes=raw.notes,
        catalogue=wanted.catalogue,
        repeated_pairs=wanted.repeated_pairs,
    )


def _as_frame(name: str, table: Any) -> pl.DataFrame:
    if isinstance(table, pl.LazyFrame):
        return table.collect()
    if isinstance(table, np.ndarray) and table.dtype.names is None:
        roles = ["user", "item", "time"]
        if table.ndim != 2 or table.shape[1] not in (2, 3):
            raise InputError(
                f"{name}: an array of shape {list(table.shape)}: give one of [n, 2] or "
                "[n, 3], of user, item and time"
            )
        return pl.DataFrame(
            {
                role: table[:, place]
                for place, role in enumerate(roles[: table.shape[1]])
            }
        )
    try:
        return pl.DataFrame(table)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{name}: {type(table).__name__} is no table ({reason}): give a data frame"
        ) from error
