"""Filters of the interactions: a minimum rating, a minimum activity, a k-core.

Every filter adds a note about what it dropped. The k-core is what is left after users
and items with fewer than k partners are removed until there are none (Seidman, "Network
structure and minimum degree", Social Networks 1983).
"""

import numpy as np
import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.raw import Raw, as_ratings
from fedpeft_jax.data.settings import DataSettings


def apply_filters(raw: Raw, settings: DataSettings) -> Raw:
    """Returns the interactions that pass the filters, with a note for every filter.

    The filters are applied in this order: ratings, users with few distinct items,
    k-core.

    Raises:
      InputError: if the data lack what a filter needs, or a filter leaves nothing.

    Example:
      >>> frame = pl.DataFrame({"user": [1, 1, 2], "item": [5, 6, 5],
      ...                       "rating": [5.0, 2.0, 4.0]})
      >>> raw = apply_filters(Raw("toy", frame), DataSettings(min_rating=3))
      >>> len(raw.interactions), raw.notes
      (2, ('min_rating=3 dropped 1 of 3 interactions, and with them 0 of 2 users',))
    """
    steps = []
    if settings.min_rating is not None:
        text = f"min_rating={settings.min_rating:g}"
        steps.append((text, lambda f: _rated(raw.name, f, settings.min_rating)))
    if settings.min_interactions > 1:
        least = settings.min_interactions
        steps.append((f"min_interactions={least}", lambda f: _active(f, least)))
    if settings.k_core > 1:
        steps.append((f"k_core={settings.k_core}", lambda f: _core(f, settings.k_core)))
    frame, notes = raw.interactions, list(raw.notes)
    for text, step in steps:
        kept = step(frame)
        if kept.is_empty():
            raise InputError(
                f"{raw.name}: `{text}` leaves none of {len(frame)} interactions: "
                "set it lower"
            )
        if dropped := len(frame) - len(kept):
            users, left = frame["user"].n_unique(), kept["user"].n_unique()
            notes.append(
                f"{text} dropped {dropped} of {len(frame)} interactions, and with them "
                f"{users - left} of {users} users"
            )
        frame = kept
    return raw._replace(interactions=frame, notes=tuple(notes))


def _rated(name: str, frame: pl.DataFrame, least: float | None) -> pl.DataFrame:
    if "rating" not in frame.columns:
        raise InputError(
            f"{name}: `min_rating={least}` needs ratings, and there are none: leave it "
            "out, or set `rating_column`"
        )
    ratings = as_ratings(name, frame["rating"])
    if missing := ratings.null_count():
        raise InputError(
            f"{name}: `min_rating={least}` needs ratings, and {missing} of "
            f"{len(frame)} interactions have no rating: leave it out, or add the "
            "ratings"
        )
    return frame.filter(ratings >= least)


def _active(frame: pl.DataFrame, least: int) -> pl.DataFrame:
    return frame.filter(pl.col("item").n_unique().over("user") >= least)


def _core(frame: pl.DataFrame, k: int) -> pl.DataFrame:
    users, items = (
        frame[c].cast(pl.String).cast(pl.Categorical).to_physical().to_numpy()
        for c in ("user", "item")
    )
    pairs = np.unique(users.astype(np.int64) * (int(items.max()) + 1) + items)
    user, item = np.divmod(pairs, int(items.max()) + 1)
    keep = np.ones(len(pairs), bool)
    while True:
        few = np.zeros(len(pairs), bool)
        for ids in (user, item):
            few |= np.bincount(ids[keep], minlength=ids.max() + 1)[ids] < k
        if not (keep & few).any():
            break
        keep &= ~few
    users_left = np.isin(users, user[keep])
    return frame.filter(users_left & np.isin(items, item[keep]))
