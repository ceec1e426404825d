"""Cohorts: who takes part in a round, and the tiles that they train in.

Clients hold from a handful to thousands of items, and compiled code has static shapes.
A round therefore trains its cohort in *tiles*: a tile of length bucket b is a fixed
number of clients, each padded to the bucket's capacity, and how many tiles of each
bucket a round needs is data, not shape. The cohort is sorted, longest client first;
tiles of the first bucket take clients until none left needs that capacity, then tiles
of the next one go on from there. A tile that is not full at the end of its bucket takes
shorter clients along, so that only the last tile of a round can have empty places.

No bound on the number of long clients in a cohort is needed, no client is ever dropped,
every cohort fits the one program, and the memory of a round is that of one tile.
"""

from typing import NamedTuple

import numpy as np

from fedpeft_jax.core.errors import InputError

_WORTHWHILE = 1.1


class Tiles(NamedTuple):
    """The shapes that a cohort trains in, longest bucket first.

    Attributes:
      capacities: positives that a client of each bucket may hold, descending.
      sizes: clients in a tile of each bucket.
    """

    capacities: tuple[int, ...]
    sizes: tuple[int, ...]


class Cohorts(NamedTuple):
    """The cohorts of consecutive rounds.

    Attributes:
      client_ids: int32[T, C], each round's clients, longest history first.
      num_tiles: int32[T, buckets], how many tiles of each bucket a round trains.
    """

    client_ids: np.ndarray
    num_tiles: np.ndarray


def sample_cohort(seed: int, round_: int, num_clients: int, size: int) -> np.ndarray:
    """Draws a cohort uniformly without replacement, from (seed, round) alone.

    Args:
      seed: of the run.
      round_: index of the round, from 0.
      num_clients: U.
      size: C.

    Returns:
      int64[C], ascending client ids.

    Raises:
      InputError: if a cohort of that size cannot be drawn.

    Example:
      >>> sample_cohort(seed=0, round_=7, num_clients=4, size=4).tolist()
      [0, 1, 2, 3]
    """
    check_cohort_size(size, num_clients)
    generator = np.random.default_rng([seed, round_])
    drawn = generator.choice(num_clients, size, replace=False, shuffle=False)
    return np.sort(drawn)


def check_cohort_size(size: int, num_clients: int) -> None:
    """Raises InputError if a cohort of that size cannot be drawn."""
    if not 1 <= size <= num_clients:
        raise InputError(
            f"a cohort of {size} cannot be drawn from {num_clients} clients: "
            f"set `cohort_size` between 1 and {num_clients}"
        )


def plan_cohorts(
    tiles: Tiles,
    counts: np.ndarray,
    *,
    cohort_size: int,
    seed: int,
    first_round: int,
    num_rounds: int,
) -> Cohorts:
    """Draws the cohorts of some rounds and cuts each into tiles.

    Args:
      tiles: as made by `make_tiles` for the same counts.
      counts: int[U], each client's number of training items.
      cohort_size: C.
      seed: of the run.
      first_round: index of the first round, from 0.
      num_rounds: T.

    Example:
      >>> plan = plan_cohorts(Tiles((9, 3), (1, 2)), np.array([2, 9, 3, 5]),
      ...                     cohort_size=4, seed=0, first_round=0, num_rounds=1)
      >>> plan.client_ids.tolist(), plan.num_tiles.tolist()
      ([[1, 3, 2, 0]], [[2, 1]])
    """
    client_ids = np.empty((num_rounds, cohort_size), np.int32)
    for t in range(num_rounds):
        cohort = sample_cohort(seed, first_round + t, len(counts), cohort_size)
        client_ids[t] = cohort[np.argsort(-counts[cohort], kind="stable")]
    lengths = counts[client_ids]
    num_tiles = np.empty((num_rounds, len(tiles.sizes)), np.int32)
    done = np.zeros(num_rounds, np.int64)
    shorter = (*tiles.capacities[1:], -1)
    for bucket, (size, next_capacity) in enumerate(
        zip(tiles.sizes, shorter, strict=True)
    ):
        until = np.sum(lengths > next_capacity, axis=1)
        num_tiles[:, bucket] = -(-np.maximum(until - done, 0) // size)
        done = np.minimum(done + num_tiles[:, bucket] * size, cohort_size)
    return Cohorts(client_ids, num_tiles)


def make_tiles(
    counts: np.ndarray,
    cohort_size: int,
    *,
    max_buckets: int = 6,
    tile_rows: int = 4096,
    client_chunk: int = 0,
) -> Tiles:
    """Chooses length buckets with the least padding, and the tiles' sizes.

    Args:
      counts: int[U], each client's number of training items.
      cohort_size: C.
      max_buckets: more buckets pad less and compile longer; fewer are taken where
        they pad at most a tenth more.
      tile_rows: positives in a tile, padding included: the unit of memory.
      client_chunk: bound on the clients in a tile, 0 for none.

    Example:
      >>> make_tiles(np.repeat([5, 50], [90, 10]), 20, tile_rows=100)
      Tiles(capacities=(50, 5), sizes=(2, 20))
    """
    # A client without training items still takes a place.
    capacities = _capacities(np.maximum(counts, 1), max_buckets)
    bound = min(cohort_size, client_chunk or cohort_size)
    sizes = tuple(int(np.clip(tile_rows // c, 1, bound)) for c in capacities)
    return Tiles(capacities, sizes)


def _capacities(counts: np.ndarray, max_buckets: int) -> tuple[int, ...]:
    """Covers all lengths by few capacities with the least padding (exact, by DP)."""
    lengths, tally = np.unique(counts, return_counts=True)
    if len(lengths) > 256:  # Thin out, keeping the longest of each run: still a cover.
        runs = np.array_split(np.arange(len(lengths)), 256)
        tally = np.array([tally[run].sum() for run in runs])
        lengths = np.array([lengths[run[-1]] for run in runs])
    below = np.concatenate([[0], np.cumsum(tally)])
    # area[a, b]: clients of lengths a..b, all padded to the length b.
    area = lengths[None, :] * (below[None, 1:] - below[:-1, None]).astype(float)
    area[np.tril_indices(len(lengths), -1)] = np.inf
    costs, starts = [np.concatenate([[0.0], np.full(len(lengths), np.inf)])], []
    for _ in range(min(max_buckets, len(lengths))):
        total = costs[-1][:-1, None] + area
        starts.append(np.argmin(total, axis=0))
        costs.append(np.concatenate([[0.0], np.min(total, axis=0)]))
    # A bucket more must pay for its compilation.
    enough = [cost[-1] <= _WORTHWHILE * costs[-1][-1] for cost in costs].index(True)
    capacities, end = [], len(lengths)
    for start in reversed(starts[:enough]):
        capacities.append(int(lengths[end - 1]))
        end = int(start[end - 1])
    return tuple(capacities)
