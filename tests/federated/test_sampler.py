"""What a client draws, how it lays out its rows, and what a sampler expects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.federated import fresh_negatives, published_negatives
from fedpeft_jax.federated.sampler import ClientData, pair_scores
from tests.helpers import client_data, make_split

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_ITEMS = 10
SPLIT = make_split([[5, 1, 8], [7], [0, 9, 4, 2]], NUM_ITEMS)


@pytest.mark.parametrize("num_negatives", [1, 2, 3])
@pytest.mark.parametrize("client", [0, 1, 2])
def test_rows_of_a_client_are_distinct_and_pairs_index_them(client, num_negatives):
    train = SPLIT.train.row(client)
    count = len(train)
    data = client_data(SPLIT, jax.random.key(1), 0, client, 5, num_negatives)
    assert data.item_ids.shape == (5 * (1 + num_negatives),)
    assert data.positives.shape == data.mask.shape == (5,)
    assert data.negatives.shape == (5, num_negatives)
    ids = np.asarray(data.item_ids)
    real = ids[ids < NUM_ITEMS]
    assert len(np.unique(real)) == len(real)
    assert data.mask.tolist() == [True] * count + [False] * (5 - count)
    np.testing.assert_array_equal(ids[data.positives[:count]], train)
    negatives = ids[data.negatives[:count]]
    assert not np.isin(negatives, [*train, NUM_ITEMS]).any()
    history = data.history
    np.testing.assert_array_equal(ids[history.ids[history.mask]], train)


def test_an_empty_place_has_no_rows_and_no_pairs():
    data = client_data(SPLIT, jax.random.key(1), 0, SPLIT.num_clients, 4)
    assert not data.mask.any()
    assert set(data.item_ids[:4].tolist()) == {NUM_ITEMS}


@pytest.mark.parametrize(("num_pairs", "num_negatives"), [(5, 1), (3, 2), (2, 3)])
def test_pair_scores_are_scores_of_the_slots(num_pairs, num_negatives):
    split = make_split([np.arange(num_pairs)], NUM_ITEMS)
    key = jax.random.key(0)
    data = client_data(split, key, 0, 0, num_pairs, num_negatives)
    scores = jnp.arange(float(num_pairs * (1 + num_negatives))) ** 2
    # The catalogue is large enough for the slices; one item fewer asks for the gather.
    sliced = pair_scores(scores, data, pool=NUM_ITEMS + 2)
    gathered = pair_scores(scores, data, pool=num_pairs)
    for a, b in zip(sliced, gathered, strict=True):
        np.testing.assert_array_equal(a, b)
    assert sliced[1].shape == (num_pairs, num_negatives)


def test_pair_scores_with_repeated_negatives():
    data = ClientData(
        item_ids=jnp.array([0, 1, 2, 3, 4, 4]),
        positives=jnp.arange(3),
        negatives=jnp.array([[3], [3], [3]]),
        mask=jnp.ones(3, bool),
    )
    positives, negatives = pair_scores(jnp.arange(6.0), data, pool=4)
    assert positives.tolist() == [0, 1, 2]
    assert negatives.tolist() == [[3], [3], [3]]


def held_out_split():
    """Five clients of `NUM_ITEMS` items with a validation and a test item each."""
    split = make_split([[5, 1, 8], [7], [0, 9, 4, 2], [3, 6], [1, 2, 3]], NUM_ITEMS)
    split.valid[:], split.test[:] = [0, 1, 3, 4, 5], [2, 8, 5, 0, 9]
    return split


SAMPLERS = {
    "fresh": lambda n: fresh_negatives(NUM_ITEMS, n),
    "published": lambda n: published_negatives(NUM_ITEMS, n),
    "slots": lambda n: published_negatives(NUM_ITEMS, n, num_slots=8),
    "unseen": lambda n: published_negatives(NUM_ITEMS, n, exclude_held_out=True),
    "all": lambda n: published_negatives(
        NUM_ITEMS, n, num_slots=9, fixed=True, exclude_held_out=True
    ),
}


def draw_all(sampler, split, round_, seed=0, capacity=4):
    """Each client's negatives in one round, lists of global ids."""
    store, draw = sampler.make_store(split), jax.jit(sampler.draw, static_argnums=4)
    drawn = []
    for client, count in enumerate(split.counts):
        data = draw(jax.random.key(seed), round_, client, store, capacity)
        ids = np.asarray(data.item_ids)[np.asarray(data.negatives)[:count]]
        drawn.append(ids.ravel().tolist())
    return drawn


@pytest.mark.parametrize("name", SAMPLERS)
def test_negatives_are_drawn_as_often_as_expected(name):
    """A brute-force tally over many keys against the sampler's own expectation."""
    split, tally, draws = held_out_split(), np.zeros(NUM_ITEMS), 400
    sampler = SAMPLERS[name](2)
    for seed in range(draws):
        items = np.concatenate(draw_all(sampler, split, 0, seed))
        tally += np.bincount(items, minlength=NUM_ITEMS)
    expected = sampler.expected(split)
    assert tally.sum() == draws * 2 * split.counts.sum()
    np.testing.assert_allclose(expected.sum(), 2 * split.counts.sum())
    np.testing.assert_array_equal(expected == 0, tally == 0)
    np.testing.assert_allclose(tally / draws, expected, atol=0.2)


def test_the_published_sampler_without_options_draws_the_same_bits():
    split = held_out_split()
    fresh, published = (SAMPLERS[name](1) for name in ("fresh", "published"))
    for round_ in range(3):
        assert draw_all(fresh, split, round_) == draw_all(published, split, round_)
    np.testing.assert_array_equal(fresh.expected(split), published.expected(split))


def test_fixed_negatives_do_not_depend_on_the_round():
    split = held_out_split()
    fixed = published_negatives(NUM_ITEMS, fixed=True)
    assert draw_all(fixed, split, 0) == draw_all(fixed, split, 7)
    assert draw_all(fixed, split, 0) != draw_all(fixed, split, 0, seed=1)
    fresh = fresh_negatives(NUM_ITEMS)
    assert draw_all(fresh, split, 0) != draw_all(fresh, split, 7)


def test_slots_and_held_out_items_are_never_negatives():
    split = held_out_split()
    for seed in range(20):
        for items in draw_all(SAMPLERS["slots"](2), split, 0, seed):
            assert max(items) < 8
        unseen = draw_all(SAMPLERS["unseen"](2), split, 0, seed)
        for client, items in enumerate(unseen):
            assert not {int(split.valid[client]), int(split.test[client])} & set(items)
