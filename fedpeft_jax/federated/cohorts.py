"""Plans of cohorts: the clients of each round, and the tiles in which they train.

Clients hold from a handful to thousands of items, but compiled code has static shapes.
A round therefore trains its cohort in *tiles*. A tile of length bucket b is a fixed
number of clients, each padded to the bucket's capacity. The number of tiles of each
bucket is data and not part of a shape. The cohort is sorted, longest history first.
Tiles of the first bucket are filled until no remaining client needs that capacity,
and the tiles of the next bucket continue from there. If the last tile of a bucket is
not full, it also takes shorter clients, so that only the last tile of a round can have
empty places.

The number of long clients in a cohort therefore needs no bound, no client is dropped,
one program trains every cohort, and a round needs the memory of one tile.
"""

from typing import NamedTuple

import numpy as np

from fedpeft_jax.core.sampling import CohortSampling, check_sampling

# Fewer buckets are used if the padded total grows at most by this factor.
_WORTHWHILE = 1.1


class Tiles(NamedTuple):
    """The shapes in which a cohort trains, longest bucket first.

    Attributes:
      capacities: the most positives per client in each bucket, descending.
      sizes: clients per tile of each bucket.
    """

    capacities: tuple[int, ...]
    sizes: tuple[int, ...]


class Cohorts(NamedTuple):
    """The cohorts of consecutive rounds.

    Attributes:
      client_ids: int32[T, C], the clients of each round, longest history first; the
        number of clients in empty places, which are last.
      num_tiles: int32[T, b], the number of tiles of each bucket that a round trains.
    """

    client_ids: np.ndarray
    num_tiles: np.ndarray


def plan_cohorts(
    tiles: Tiles,
    counts: np.ndarray,
    *,
    sampling: CohortSampling,
    seed: int,
    first_round: int,
    num_rounds: int,
    width: int | None = None,
) -> Cohorts:
    """Draws the cohorts of consecutive rounds and divides each into tiles.

    Args:
      tiles: the result of `make_tiles` for the same counts.
      counts: int[U], each client's number of training items.
      sampling: how cohorts are drawn.
      seed: seed of the run.
      first_round: index of the first round, from 0.
      num_rounds: T, the number of rounds.
      width: C, the places of a cohort, at least the clients of each of these rounds;
        None for the size of the largest cohort of the run so far.

    Returns:
      The clients of each round and its numbers of tiles.

    Raises:
      InputError: if such cohorts cannot be drawn.

    Example:
      >>> from fedpeft_jax.core.sampling import FixedCohorts
      >>> plan = plan_cohorts(
      ...     Tiles((9, 3), (1, 2)), np.array([2, 9, 3, 5]),
      ...     sampling=FixedCohorts(4, size=4), seed=0, first_round=0, num_rounds=1,
      ... )
      >>> plan.client_ids.tolist(), plan.num_tiles.tolist()
      ([[1, 3, 2, 0]], [[2, 1]])
    """
    check_sampling(sampling)
    if width is None:
        width = sampling.most(seed, first_round + num_rounds)
    client_ids = np.full((num_rounds, width), len(counts), np.int32)
    for t in range(num_rounds):
        cohort = sampling.draw(seed, first_round + t)
        order = np.argsort(-counts[cohort], kind="stable")
        client_ids[t, : len(cohort)] = cohort[order]
    lengths = np.append(counts, -1)[client_ids]
    sizes = np.sum(lengths >= 0, axis=1)
    num_tiles = np.empty((num_rounds, len(tiles.sizes)), np.int32)
    done = np.zeros(num_rounds, np.int64)
    shorter = (*tiles.capacities[1:], -1)
    for bucket, (size, next_capacity) in enumerate(
        zip(tiles.sizes, shorter, strict=True)
    ):
        until = np.sum(lengths > next_capacity, axis=1)
        num_tiles[:, bucket] = -(-np.maximum(until - done, 0) // size)
        done = np.minimum(done + num_tiles[:, bucket] * size, sizes)
    return Cohorts(client_ids, num_tiles)


def make_tiles(
    counts: np.ndarray,
    cohort_size: int,
    *,
    max_buckets: int = 6,
    tile_rows: int = 4096,
    client_chunk: int = 0,
) -> Tiles:
    """Chooses length buckets with little padding, and the sizes of their tiles.

    Args:
      counts: int[U], each client's number of training items.
      cohort_size: C, clients per round.
      max_buckets: the most buckets. More buckets need less padding and a longer
        compilation; fewer are used if the padded total then grows by at most a tenth.
      tile_rows: positives per tile, padding included. Memory is proportional to it.
      client_chunk: the most clients per tile; 0 for no bound.

    Returns:
      The capacity and the tile size of each bucket.

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
    """Returns few capacities, descending, that cover all lengths with least padding.

    Dynamic programming finds the optimum, which is exact for up to 256 lengths.
    """
    lengths, tally = np.unique(counts, return_counts=True)
    if len(lengths) > 256:  # The longest length of each run covers the whole run.
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
    # Every bucket is compiled, so it must save enough padding.
    enough = [cost[-1] <= _WORTHWHILE * costs[-1][-1] for cost in costs].index(True)
    capacities, end = [], len(lengths)
    for start in reversed(starts[:enough]):
        capacities.append(int(lengths[end - 1]))
        end = int(start[end - 1])
    return tuple(capacities)
