"""Generated data sets that need no file: a small one to learn from, large ones to time.

The small one has planted structure. Titles and genres reveal part of what makes users
like an item; a second part belongs to the item alone and no text tells it. So a model
can gain from item text, and gain again from item-specific parameters.
"""

import dataclasses

import numpy as np
import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.dataset import Dataset, build_dataset
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
_BLOCK = 1024  # users drawn at once: bounds memory, whatever the number of users


@dataclasses.dataclass(frozen=True, eq=False)
class Planted:
    """What the synthetic data set is drawn from, for oracles that know the truth.

    The log-odds that user ``u`` picks item ``i`` next are ``popularity[i]
    + user_text[u] @ item_text[i] + user_own[u] @ item_own[i]``.

    Attributes:
      popularity: float64[I], appeal to everybody.
      item_text: float64[I, 5], attributes that the prompt reveals.
      item_own: float64[I, 3], attributes that no text reveals.
      user_text: float64[U, 5], tastes for ``item_text``.
      user_own: float64[U, 3], tastes for ``item_own``.
      prompts: the item's title, year and genres.
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
    """Draws the tastes and attributes behind ``load_synthetic`` of the same arguments.

    Args:
      seed: fixes everything.
      num_users: U.
      num_items: I.

    Example:
      >>> planted = plant_synthetic(num_users=10, num_items=20)
      >>> planted.prompts[0]
      'Title: The Sheriff of the Cattle (1952). Genres: Documentary, Drama.'
    """
    rng = np.random.default_rng([seed, 0])
    # A title speaks of one theme; the genre is the theme's usual one half of the time.
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
    # Zipf's law with a flattened head, over items in random order.
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


def load_synthetic(
    seed: int = 0, num_users: int = 1000, num_items: int = 600
) -> Dataset:
    """Generates the embedded data set: titles, genres, and tastes for more than those.

    Each user picks items one after the other, without repetition, with the odds of
    ``Planted``. Activity is long-tailed, about 40 items a user and 5 at least. Every
    item is picked by somebody, so that the catalogue has ``num_items`` items.

    Args:
      seed: fixes everything.
      num_users: U, at least 1.
      num_items: I, at least 10.

    Returns:
      The data set, named ``synthetic``.

    Raises:
      InputError: fewer users or items than that.

    Example:
      >>> data = load_synthetic(num_users=50, num_items=30)
      >>> data.num_users, data.num_items, int(np.diff(data.offsets).min())
      (50, 30, 5)
    """
    raw = synthetic_interactions(seed, num_users, num_items)
    return build_dataset(raw.name, raw.interactions, raw.item_text)


def synthetic_interactions(
    seed: int = 0, num_users: int = 1000, num_items: int = 600
) -> Raw:
    """Returns what `load_synthetic` of the same arguments numbers and orders."""
    _at_least("users", num_users, 1)
    _at_least("items", num_items, 2 * _MIN_LENGTH)
    planted = plant_synthetic(seed, num_users, num_items)
    rng = np.random.default_rng([seed, 1])
    lengths = _lengths(
        rng, num_users, _MEAN_LENGTH, _MIN_LENGTH, min(200, num_items // 2)
    )
    users, items = [], []
    keenest = np.full(num_items, -np.inf)
    keenest_user = np.zeros(num_items, np.int64)
    for start in range(0, num_users, _BLOCK):
        block = slice(start, start + _BLOCK)
        # Gumbel noise turns "the n highest" into n picks in turn without repetition.
        odds = planted.popularity + planted.user_text[block] @ planted.item_text.T
        odds += planted.user_own[block] @ planted.item_own.T
        odds += rng.gumbel(size=odds.shape)
        ranking = np.argsort(-odds, axis=1)
        rows, places = np.nonzero(np.arange(num_items) < lengths[block, None])
        users.append(rows + start)
        items.append(ranking[rows, places])
        better = odds.max(axis=0) > keenest
        keenest_user[better] = start + odds.argmax(axis=0)[better]
        keenest = np.maximum(keenest, odds.max(axis=0))
    unpicked = np.setdiff1d(np.arange(num_items), np.concatenate(items))
    user = np.concatenate([*users, keenest_user[unpicked]])
    interactions = pl.DataFrame(
        {
            "user": user,
            "item": np.concatenate([*items, unpicked]),
            # Not the order of the picks: the last item must be as typical as the rest.
            "time": rng.permutation(len(user)),
        }
    )
    return Raw("synthetic", interactions, dict(enumerate(planted.prompts)))


def generate_long_tailed(
    seed: int, num_users: int, num_items: int, mean_length: float = 20.0
) -> Dataset:
    """Generates random interactions at any scale, to time and to measure memory.

    Popularity is a power law over items in random order and activity is log-normal.
    There is nothing to learn but popularity, and there is no text. Unlike in a data
    set that was read, the catalogue may hold items without an interaction.

    Args:
      seed: fixes everything.
      num_users: U, at least 1.
      num_items: I, at least 4.
      mean_length: mean number of items a user, before lengths are clipped to
        [3, 2000] and to leave each user one unseen item.

    Returns:
      The data set; original ids are 0, 1, 2, ...

    Raises:
      InputError: fewer users or items than that, or a mean length below 1.

    Example:
      >>> data = generate_long_tailed(0, num_users=1000, num_items=500)
      >>> data.num_users, data.num_items, len(data.items) // 1000
      (1000, 500, 20)
    """
    _at_least("users", num_users, 1)
    _at_least("items", num_items, 4)
    _at_least("interactions a user (mean_length)", mean_length, 1)
    rng = np.random.default_rng([seed, 2])
    lengths = _lengths(rng, num_users, mean_length, 3, min(2000, num_items - 1))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    starts = np.repeat(np.arange(num_users) * num_items, lengths)

    # The inverse of a power law's distribution function: density ~ rank^(-2/3).
    ranks = (num_items * rng.random(offsets[-1]) ** 3).astype(np.int64)
    ranks += starts
    ranks.sort()
    ranks -= starts
    # A repeat moves to the next free rank: with x sorted, x - place must not fall. The
    # users' starts keep one running maximum from leaking into the next user.
    places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
    ranks += starts - places
    np.maximum.accumulate(ranks, out=ranks)
    room = np.repeat(num_items - lengths, lengths)
    ranks = np.minimum(ranks - starts, room) + places
    del room, places, starts

    # Histories are in time order, so ranks must not ascend: shuffle within each user.
    mixed = np.repeat(np.arange(num_users) << 32, lengths)
    mixed += rng.integers(1 << 32, size=len(mixed))
    order = np.argsort(mixed)
    del mixed
    items = rng.permutation(num_items).astype(np.int32)[ranks[order]]
    return Dataset(
        name=f"long-tailed-{num_users}x{num_items}",
        user_ids=np.arange(num_users),
        item_ids=np.arange(num_items),
        offsets=offsets.astype(np.int64),
        items=items,
        item_text=None,
    )


def _at_least(what: str, value: float, least: int) -> None:
    """Raises InputError if a size is too small to generate anything from."""
    if value < least:
        raise InputError(f"generated data need at least {least} {what}, got {value}")


def _lengths(
    rng: np.random.Generator, num_users: int, mean: float, low: int, high: int
) -> np.ndarray:
    """int64[U] log-normal history lengths, clipped to [low, high]."""
    drawn = rng.lognormal(np.log(mean) - 0.32, 0.8, num_users)
    return np.clip(np.rint(drawn), low, high).astype(np.int64)
