"""Cohorts are uniform, and their tiles train every client once, whatever its length."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.sampling import FixedCohorts
from fedpeft_jax.federated.cohorts import make_tiles, plan_cohorts


@st.composite
def problems(draw):
    lengths = draw(st.lists(st.integers(1, 400), min_size=1, max_size=6))
    counts = draw(st.lists(st.sampled_from(lengths), min_size=1, max_size=40))
    return {
        "counts": np.array(counts),
        "cohort_size": draw(st.integers(1, len(counts))),
        "max_buckets": draw(st.integers(1, 4)),
        "tile_rows": draw(st.sampled_from([1, 30, 1000, 8192])),
        "client_chunk": draw(st.sampled_from([0, 1, 3])),
        "seed": draw(st.integers(0, 5)),
    }


@hypothesis.settings(max_examples=200, deadline=None)
@hypothesis.given(problems())
def test_every_client_trains_once_in_a_tile_it_fits(problem):
    counts, size = problem["counts"], problem["cohort_size"]
    tiles = make_tiles(
        counts,
        size,
        max_buckets=problem["max_buckets"],
        tile_rows=problem["tile_rows"],
        client_chunk=problem["client_chunk"],
    )
    assert len(tiles.sizes) == len(tiles.capacities) <= problem["max_buckets"]
    assert list(tiles.capacities) == sorted(set(tiles.capacities), reverse=True)
    bound = problem["client_chunk"] or size
    for capacity, tile in zip(tiles.capacities, tiles.sizes, strict=True):
        assert 1 <= tile <= bound
        assert tile == 1 or tile * capacity <= problem["tile_rows"]
    plan = plan_cohorts(
        tiles,
        counts,
        sampling=FixedCohorts(len(counts), size),
        seed=problem["seed"],
        first_round=3,
        num_rounds=4,
    )
    for t, (client_ids, num_tiles) in enumerate(zip(*plan, strict=True)):
        drawn = FixedCohorts(len(counts), size).draw(problem["seed"], 3 + t)
        np.testing.assert_array_equal(np.sort(client_ids), drawn)
        trained, empty = [], 0
        for n, tile, capacity in zip(
            num_tiles, tiles.sizes, tiles.capacities, strict=True
        ):
            for _ in range(n):
                assert empty == 0, "a tile after one with empty places"
                start = len(trained)
                members = client_ids[start : start + tile]
                assert len(members) > 0, "a tile without clients"
                assert (counts[members] <= capacity).all()
                trained.extend(members)
                empty = tile - len(members)
        np.testing.assert_array_equal(trained, client_ids)


def test_cohorts_are_uniform_over_all_subsets():
    drawn = [tuple(FixedCohorts(6, size=2).draw(5, r)) for r in range(3000)]
    subsets = list(itertools.combinations(range(6), 2))
    tally = [drawn.count(subset) for subset in subsets]
    assert sum(tally) == len(drawn)  # without replacement, ascending
    assert stats.chisquare(tally).pvalue > 1e-3


def test_a_cohort_depends_on_seed_and_round_alone():
    counts = np.arange(1, 31)
    plans = []
    for max_buckets, first, rounds in [(1, 0, 6), (4, 4, 1)]:
        tiles = make_tiles(counts, 5, max_buckets=max_buckets)
        plans.append(
            plan_cohorts(
                tiles,
                counts,
                sampling=FixedCohorts(30, size=5),
                seed=1,
                first_round=first,
                num_rounds=rounds,
            )
        )
    np.testing.assert_array_equal(plans[0].client_ids[4], plans[1].client_ids[0])
    rounds = {tuple(FixedCohorts(30, 5).draw(1, r)) for r in range(6)}
    seeds = {tuple(FixedCohorts(30, 5).draw(s, 0)) for s in range(6)}
    assert len(rounds) == len(seeds) == 6


@pytest.mark.parametrize("size", [0, -1, 5])
def test_a_cohort_that_cannot_be_drawn(size):
    with pytest.raises(InputError, match="`cohort_size` between 1 and 4"):
        plan_cohorts(
            make_tiles(np.ones(4, int), 2),
            np.ones(4, int),
            sampling=FixedCohorts(4, size),
            seed=0,
            first_round=0,
            num_rounds=1,
        )


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    st.lists(st.integers(1, 30), min_size=1, max_size=12), st.integers(1, 4)
)
def test_buckets_pad_least_and_are_no_more_than_worthwhile(counts, max_buckets):
    def padded(capacities):
        return sum(min(c for c in capacities if c >= n) for n in counts)

    lengths = sorted(set(counts))
    best = [
        min(
            padded((*inner, lengths[-1]))
            for inner in itertools.combinations(lengths[:-1], buckets - 1)
        )
        for buckets in range(1, min(max_buckets, len(lengths)) + 1)
    ]
    capacities = make_tiles(np.array(counts), 1, max_buckets=max_buckets).capacities
    assert padded(capacities) == best[len(capacities) - 1]
    enough = [cost <= 1.1 * best[-1] for cost in best].index(True) + 1
    assert len(capacities) == enough


def test_many_lengths_are_thinned_out_and_still_covered():
    counts = np.random.default_rng(0).permutation(2000) + 1
    capacities = make_tiles(counts, 100, max_buckets=3).capacities
    # For evenly spread lengths the best are evenly spread capacities.
    assert capacities[0] == 2000
    np.testing.assert_allclose(capacities, [2000, 1333, 667], rtol=0.05)
