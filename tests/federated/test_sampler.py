"""A client's window of the store, and how it lays out its rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.federated.sampler import (
    ClientData,
    make_client_data,
    make_store,
    pair_scores,
    read_history,
)
from tests.helpers import client_data, make_split

pytestmark = pytest.mark.usefixtures("quick_compilation")

NUM_ITEMS = 10
SPLIT = make_split([[5, 1, 8], [7], [0, 9, 4, 2]], NUM_ITEMS)


@pytest.mark.parametrize(
    ("client", "capacity", "items"),
    [
        (0, 3, [1, 5, 8]),
        (0, 5, [1, 5, 8, 10, 10]),  # the window reaches into the next client's items
        (1, 2, [7, 10]),
        (2, 6, [0, 2, 4, 9, 10, 10]),  # and beyond the end of all items
        (3, 2, [10, 10]),  # nobody
        (2**31 - 1, 2, [10, 10]),
    ],
)
def test_read_history(client, capacity, items):
    history = read_history(
        make_store(SPLIT), jnp.int32(client), capacity=capacity, num_items=NUM_ITEMS
    )
    assert history.positives.tolist() == items
    assert history.count == sum(i < NUM_ITEMS for i in items)
    assert history.client_id == client


@pytest.mark.parametrize("num_negatives", [1, 2, 3])
@pytest.mark.parametrize("client", [0, 1, 2])
def test_rows_of_a_client_are_distinct_and_pairs_index_them(client, num_negatives):
    train = SPLIT.train[SPLIT.offsets[client] : SPLIT.offsets[client + 1]]
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
    store = make_store(make_split([np.arange(num_pairs)], NUM_ITEMS))
    history = read_history(store, jnp.int32(0), capacity=num_pairs, num_items=NUM_ITEMS)
    data = make_client_data(
        jax.random.key(0), history, num_items=NUM_ITEMS, num_negatives=num_negatives
    )
    scores = jnp.arange(float(num_pairs * (1 + num_negatives))) ** 2
    # The catalogue is large enough for the slices; one item fewer asks for the gather.
    sliced = pair_scores(scores, data, num_items=NUM_ITEMS)
    gathered = pair_scores(scores, data, num_items=num_pairs)
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
    positives, negatives = pair_scores(jnp.arange(6.0), data, num_items=4)
    assert positives.tolist() == [0, 1, 2]
    assert negatives.tolist() == [[3], [3], [3]]
