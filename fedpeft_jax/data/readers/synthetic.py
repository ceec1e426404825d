"""Generates the interactions and texts of the data set that needs no file.

Its structure is planted: titles and genres reveal one part of what makes users like an
item, and a second part belongs to the item alone. Therefore a model can gain from item
text, and again from item-specific parameters.
"""

import dataclasses

import numpy as np
import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.raw import Raw

_GENRES = (
    *("Action", "Comedy", "Documentary", "Drama"),
    *("Fantasy", "Horror", "Romance", "Western"),
)
_THEMES = (
    "Anchor Captain Coral Harbour Island Sailor Tide Whale",
    "Comet Galaxy Meteor Moon Orbit Planet Rocket Star",
    "Banker Broker Contract Fortune Gold Market Merchant Vault",
    "Castle Crown Dragon Knight Prince Queen Sword Throne",
    "Alibi Clue Detective Informer Killer Murder Suspect Witness",
    "Autumn Forest Garden Meadow Orchard River Valley Winter",
    "Ballad Chorus Dancer Guitar Melody Opera Piano Waltz",
    "Bugle Captive Colonel General Regiment Soldier Trench Victory",
    "Canyon Cattle Desert Outlaw Ranch Saddle Sheriff Stagecoach",
    "Boxer Champion Coach Goal Rally Rookie Stadium Trophy",
)
_TEXT_DIMS, _OWN_DIMS = 5, 3
_TEXT_STRENGTH, _OWN_STRENGTH = 2.5, 2.0
_MEAN_LENGTH, _MIN_LENGTH = 40, 5
_BLOCK = 1024  # users drawn at once: bounds memory for any number of users


@dataclasses.dataclass(frozen=True, eq=False)
class Planted:
    """The parameters of the synthetic data set.

    They are for tests that compare with the true parameters.

    The log-odds that user ``u`` picks item ``i`` next are ``popularity[i]
    + user_text[u] @ item_text[i] + user_own[u] @ item_own[i]``.

    Attributes:
      popularity: float64[I], the part of the log-odds that all users share.
      item_text: float64[I, 5], attributes that the prompt reveals.
      item_own: float64[I, 3], attributes that no text reveals.
      user_text: float64[U, 5], preferences for ``item_text``.
      user_own: float64[U, 3], preferences for ``item_own``.
      prompts: I texts, the title, year and genres of each item.
    """

    popularity: np.ndarray
    item_text: np.ndarray
    item_own: np.ndarray
    user_text: np.ndarray
    user_own: np.ndarray
    prompts: tuple[str, ...]


def plant_synthetic(
    seed: int = 0, num_users: int = 1000, num_items: int = 600
) -> Planted:
    """Draws the preferences and attributes of the data set with the same arguments.

    Args:
      seed: the seed of the data set.
      num_users: U, the number of users.
      num_items: I, the number of items.

    Example:
      >>> planted = plant_synthetic(num_users=10, num_items=20)
      >>> planted.prompts[0]
      'Title: The Sheriff of the Cattle (1952). Genres: Documentary, Drama.'
    """
    rng = np.random.default_rng([seed, 0])
    # A title has one theme; the first genre is that of the theme half of the time.
    theme = rng.integers(len(_THEMES), size=num_items)
    first, second = rng.integers(len(_GENRES), size=(2, num_items))
    first = np.where(rng.random(num_items) < 0.5, theme % len(_GENRES), first)
    genres = np.zeros((num_items, len(_GENRES)))
    genres[np.arange(num_items), [first, second]] = 1

    theme_vectors = rng.normal(size=(len(_THEMES), _TEXT_DIMS))
    genre_vectors = rng.normal(size=(len(_GENRES), _TEXT_DIMS))
    item_text = theme_vectors[theme] + (
        genres @ genre_vectors / np.sqrt(genres.sum(axis=1, keepdims=True))
    )
    item_text = (item_text - item_text.mean(axis=0)) / item_text.std(axis=0)
    prompts = []
    for words, row in zip(theme, genres, strict=True):
        word, other = rng.choice(_THEMES[words].split(), size=2, replace=False)
        form = ("{} and {}", "The {} of the {}", "{} of {}", "The {} {}")
        title = form[rng.integers(4)].format(word, other)
        names = ", ".join(_GENRES[genre] for genre in np.flatnonzero(row))
        prompts.append(f"Title: {title} ({rng.integers(1950, 2020)}). Genres: {names}.")
    # Zipf's law with a flat head, over items in random order.
    popularity = -1.2 * np.log(rng.permutation(num_items) + 0.02 * num_items + 1)
    return Planted(
        popularity=popularity,
        item_text=item_text,
        item_own=rng.normal(size=(num_items, _OWN_DIMS)),
        user_text=rng.normal(size=(num_users, _TEXT_DIMS))
        * (_TEXT_STRENGTH / np.sqrt(_TEXT_DIMS)),
        user_own=rng.normal(size=(num_users, _OWN_DIMS))
        * (_OWN_STRENGTH / np.sqrt(_OWN_DIMS)),
        prompts=tuple(prompts),
    )


def synthetic_interactions(
    seed: int = 0, num_users: int = 1000, num_items: int = 600
) -> Raw:
    """Generates the interactions of the synthetic data set.

    Each user picks items one after the other, without repetition, with the odds of
    ``Planted``. The number of items per user is long-tailed, about 40 on average and at
    least 5. Every item is picked by at least one user, so the catalogue has
    ``num_items`` items.

    Args:
      seed: the seed of everything that is drawn.
      num_users: U, at least 1.
      num_items: I, at least 10.

    Returns:
      The interactions with integer times, and one prompt per item.

    Raises:
      InputError: for fewer users or items.

    Example:
      >>> raw = synthetic_interactions(num_users=50, num_items=30)
      >>> raw.interactions["user"].n_unique(), len(raw.item_text)
      (50, 30)
    """
    check_size("users", num_users, 1)
    check_size("items", num_items, 2 * _MIN_LENGTH)
    planted = plant_synthetic(seed, num_users, num_items)
    rng = np.random.default_rng([seed, 1])
    lengths = draw_lengths(
        rng, num_users, _MEAN_LENGTH, _MIN_LENGTH, min(200, num_items // 2)
    )
    users, items = [], []
    best = np.full(num_items, -np.inf)
    best_user = np.zeros(num_items, np.int64)
    for start in range(0, num_users, _BLOCK):
        block = slice(start, start + _BLOCK)
        # With Gumbel noise the n highest are n picks in turn without repetition.
        odds = planted.popularity + planted.user_text[block] @ planted.item_text.T
        odds += planted.user_own[block] @ planted.item_own.T
        odds += rng.gumbel(size=odds.shape)
        ranking = np.argsort(-odds, axis=1)
        rows, places = np.nonzero(np.arange(num_items) < lengths[block, None])
        users.append(rows + start)
        items.append(ranking[rows, places])
        better = odds.max(axis=0) > best
        best_user[better] = start + odds.argmax(axis=0)[better]
        best = np.maximum(best, odds.max(axis=0))
    unpicked = np.setdiff1d(np.arange(num_items), np.concatenate(items))
    user = np.concatenate([*users, best_user[unpicked]])
    interactions = pl.DataFrame(
        {
            "user": user,
            "item": np.concatenate([*items, unpicked]),
            # Not in the order of the picks: the last item must be a typical one.
            "time": rng.permutation(len(user)),
        }
    )
    return Raw("synthetic", interactions, dict(enumerate(planted.prompts)))


def check_size(what: str, value: float, least: int) -> None:
    """Raises InputError if a size of generated data is too small."""
    if value < least:
        raise InputError(f"generated data need at least {least} {what}, got {value}")


def draw_lengths(
    rng: np.random.Generator, num_users: int, mean: float, low: int, high: int
) -> np.ndarray:
    """Draws log-normal history lengths, int64[U], clipped to [low, high].

    Example:
      >>> draw_lengths(np.random.default_rng(0), 4, mean=20, low=3, high=50)
      array([16, 13, 24, 16])
    """
    drawn = rng.lognormal(np.log(mean) - 0.32, 0.8, num_users)
    return np.clip(np.rint(drawn), low, high).astype(np.int64)
