"""Training negatives against a brute-force list of the unseen items."""

import functools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from fedpeft_jax.federated.negatives import draw_negatives
from tests.helpers import client_data, make_split

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_ITEMS = 12


@functools.partial(jax.jit, static_argnums=(3,))
def draw(key, positives, count, num_negatives=1):
    return draw_negatives(
        key,
        count,
        positives,
        count,
        capacity=positives.shape[0],
        num_items=NUM_ITEMS,
        num_negatives=num_negatives,
    )


@functools.partial(jax.jit, static_argnums=(2,))
def draw_many(keys, positives, num_negatives=1):
    """Item ids [keys, count, M] of a client whose places are all filled."""
    many = jax.vmap(lambda key: draw(key, positives, positives.size, num_negatives))
    drawn = many(keys)
    take = jax.vmap(lambda ids, slots: ids[slots])
    return take(drawn.item_ids, drawn.slots)


def pad(items, capacity):
    items = sorted(items)
    return jnp.array(items + [NUM_ITEMS] * (capacity - len(items)), jnp.int32)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    items=st.sets(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=NUM_ITEMS - 1),
    num_negatives=st.sampled_from([1, 3]),
    seed=st.integers(0, 2**31 - 1),
)
def test_draws_are_unseen_distinct_and_even(items, num_negatives, seed):
    drawn = draw(
        jax.random.key(seed), pad(items, 11), jnp.int32(len(items)), num_negatives
    )
    unseen = set(range(NUM_ITEMS)) - items
    num_pairs = len(items) * num_negatives
    ids = [i for i in drawn.item_ids.tolist() if i != NUM_ITEMS]
    # One row an item, as many of them as there can be, padding after them.
    assert len(ids) == len(set(ids)) == min(num_pairs, len(unseen))
    assert drawn.item_ids.tolist()[: len(ids)] == ids
    assert set(ids) <= unseen
    # Every pair has a negative, and every row serves about equally many pairs.
    slots = np.asarray(drawn.slots)[: len(items)]
    assert slots.shape == (len(items), num_negatives)
    uses = np.bincount(slots.ravel(), minlength=len(ids))
    assert len(uses) == len(ids)
    assert uses.max() - uses.min() <= 1


@pytest.mark.parametrize(
    ("items", "num_negatives"),
    [((0, 4, 5, 9, 11), 1), ((2, 7), 2), ((1, 2, 3, 8, 9, 10, 11), 1), ((6,), 1)],
)
def test_every_single_draw_is_uniform(items, num_negatives):
    # 7 or 10 unseen items in 4, 5 or 7 strata of unequal width; 5 for 7 pairs; 11.
    keys = jax.random.split(jax.random.key(1), 20_000)
    drawn = np.asarray(draw_many(keys, jnp.array(items, jnp.int32), num_negatives))
    unseen = sorted(set(range(NUM_ITEMS)) - set(items))
    for pair in drawn.reshape(len(keys), -1).T:
        tally = np.bincount(pair, minlength=NUM_ITEMS)
        assert tally.sum() == tally[unseen].sum()
        assert stats.chisquare(tally[unseen]).pvalue > 1e-4


@pytest.mark.parametrize("num_negatives", [1, 3])
def test_draws_do_not_depend_on_padding_or_place(num_negatives):
    items, count = (0, 4, 5, 9), jnp.int32(4)
    key = lambda i: jax.random.fold_in(jax.random.key(2), i)  # noqa: E731
    alone = draw(key(1), pad(items, 4), count, num_negatives)
    padded = draw(key(1), pad(items, 9), count, num_negatives)
    used = int(jnp.sum(alone.item_ids < NUM_ITEMS))
    assert padded.item_ids.tolist()[:used] == alone.item_ids.tolist()[:used]
    assert set(padded.item_ids.tolist()[used:]) <= {NUM_ITEMS}
    np.testing.assert_array_equal(padded.slots[:4], alone.slots)
    others = jnp.stack([pad((1,), 4), pad(items, 4), pad((2, 3), 4)])
    together = jax.vmap(lambda i, p, c: draw(key(i), p, c, num_negatives))(
        jnp.arange(3), others, jnp.array([1, 4, 2])
    )
    np.testing.assert_array_equal(together.item_ids[1], alone.item_ids)
    np.testing.assert_array_equal(together.slots[1], alone.slots)


def test_another_key_draws_others():
    positives = jnp.array([0, 4, 5], jnp.int32)
    drawn = draw_many(jax.random.split(jax.random.key(3), 50), positives)
    assert len(np.unique(np.asarray(drawn)[..., 0], axis=0)) > 10


def test_held_out_items_can_be_drawn():
    # Leaving them out would tell the model which item is the test item.
    split = make_split([[0, 1, 2, 3]], num_items=8)
    split.valid[0], split.test[0] = 4, 7
    drawn = set()
    for round_ in range(20):
        data = client_data(split, jax.random.key(0), round_, 0)
        drawn |= set(data.item_ids[data.negatives].ravel().tolist())
    assert drawn == {4, 5, 6, 7}


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(
    items=st.sets(st.integers(0, NUM_ITEMS - 1), min_size=1, max_size=6),
    held=st.sets(st.integers(0, NUM_ITEMS - 1), max_size=2),
    slots=st.sampled_from([0, 9]),
    seed=st.integers(0, 2**31 - 1),
)
def test_draws_outside_of_more_and_from_fewer_items(items, held, slots, seed):
    pool = set(range(slots or NUM_ITEMS)) - items - held
    hypothesis.assume(pool)
    drawn = draw_outside(
        jax.random.key(seed), pad(items, 6), jnp.int32(len(items)),
        pad(items | held, 8), slots,
    )  # fmt: skip
    ids = [i for i in drawn.item_ids.tolist() if i != NUM_ITEMS]
    assert set(ids) <= pool
    assert len(ids) == len(set(ids)) == min(2 * len(items), len(pool))
    used = np.asarray(drawn.item_ids)[np.asarray(drawn.slots)[: len(items)]]
    assert set(used.ravel().tolist()) == set(ids)


@functools.partial(jax.jit, static_argnums=(4,))
def draw_outside(key, positives, count, excluded, slots):
    return draw_negatives(
        key,
        count,
        excluded,
        jnp.sum(excluded < (slots or NUM_ITEMS), dtype=jnp.int32),
        capacity=positives.shape[0],
        num_items=NUM_ITEMS,
        num_negatives=2,
        pool=slots or None,
    )


def test_excluding_what_is_excluded_anyway_changes_no_bit():
    items, count = {1, 4, 5}, jnp.int32(3)
    sizes = {"capacity": 4, "num_items": NUM_ITEMS}
    one, two = (
        draw_negatives(jax.random.key(0), count, pad(items, n), count, **sizes, **pool)
        for n, pool in ((4, {}), (6, {"pool": NUM_ITEMS}))
    )
    jax.tree.map(np.testing.assert_array_equal, one, two)
