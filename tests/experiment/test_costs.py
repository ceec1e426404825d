"""The four dimensions of a strategy, against closed forms and counts by hand."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.embeddings import EMBEDDINGS
from fedpeft_jax.experiment import configure, make_phases, prepare
from fedpeft_jax.experiment.costs import (
    client_round,
    count_flops,
    measure_costs,
    median_client,
    time_calls,
)
from fedpeft_jax.federated import init_private, init_server
from fedpeft_jax.federated.client import train_client
from tests.small_runs import FEATURES as D
from tests.small_runs import NUM_ITEMS as I
from tests.small_runs import SETTINGS, small_runs
from tests.toys import Codes

TABLE, USER = 4 * I * D, 4 * D

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


@pytest.fixture(scope="module")
def prepared():
    """Data and latents, which are the same for every strategy here."""
    return prepare(configure(**SETTINGS))


def strategy(full, embedding, **settings):
    warm_up = 2 if (full, embedding != "none") == ("frozen", True) else 0
    given = {"full": full, "embedding": embedding, "warm_up_rounds": warm_up}
    return configure(**{**SETTINGS, **given, **settings})


def measured(prepared, full, embedding, **settings):
    return measure_costs(strategy(full, embedding, **settings), prepared, seconds=0.0)


def codes(prepared, config, name):
    """The codes of all items, as the model of the main phase holds them."""
    fitted = make_phases(config, prepared)[-1].fitted.values
    return np.asarray(fitted["frozen"]["item_embedding"]["compressed"][name])


def test_a_trained_table_moves_every_item_in_every_dimension(prepared):
    costs = measured(prepared, "trained", "none")
    assert (costs.uplink, costs.downlink, costs.once) == (TABLE, TABLE, 0)
    assert costs.held == TABLE + USER
    assert costs.items == pytest.approx(4 * np.mean(prepared.split.counts))
    assert costs.capacity == (I, D, I)
    assert costs.flops > 0 and costs.milliseconds > 0
    assert costs.client_items == np.sort(prepared.split.counts)[29]


def test_a_frozen_table_alone_moves_nothing(prepared):
    costs = measured(prepared, "frozen", "none")
    assert (costs.uplink, costs.once, costs.held) == (0, TABLE, TABLE + USER)
    text = np.asarray(prepared.item_features.table)
    assert costs.capacity == (1, 0, len(np.unique(text, axis=0)))


def test_lora_has_a_vector_for_every_item_in_few_dimensions(prepared):
    costs = measured(prepared, "frozen", "lora(rank=3)")
    assert costs.uplink == costs.downlink == 4 * 3 * (I + D)
    assert costs.once == TABLE
    assert costs.held == costs.uplink + TABLE + USER
    assert costs.capacity == (I, 3, I)


def test_hash_has_a_vector_for_every_choice_of_buckets(prepared):
    config = strategy("frozen", "hash(num_buckets=4, num_hashes=3)")
    costs = measure_costs(config, prepared, seconds=0.0)
    assert costs.uplink == 4 * 4 * D
    assert costs.once == TABLE + I * 3  # one byte per code
    buckets = codes(prepared, config, "buckets").tolist()
    choices = {tuple(sorted(row)) for row in buckets}
    assert len(choices) < len(set(map(tuple, buckets)))  # a sum has no order
    assert costs.capacity == (len(choices), 4, I)


def test_rq_has_a_vector_for_every_code_that_is_fitted(prepared):
    spec = "rq(num_codebooks=2, codebook_size=3, quantizer='kmeans')"
    config = strategy("none", spec)
    costs = measure_costs(config, prepared, seconds=0.0)
    assert costs.uplink == 4 * 2 * 3 * D
    found = {tuple(row) for row in codes(prepared, config, "codes").tolist()}
    assert 3 < len(found) < 10
    assert costs.capacity.vectors == costs.capacity.vectors_with_table == len(found)
    assert costs.capacity.rank == 5  # the codebooks share one degree of freedom


def test_a_registered_embedding_is_measured(prepared, monkeypatch):
    monkeypatch.setitem(EMBEDDINGS, "toy_codes", Codes)
    costs = measured(prepared, "none", "toy_codes(num_codes=5)")
    assert costs.uplink == 4 * 5 * D
    assert costs.capacity == (5, 5, 5)
    assert costs.once == I * 4  # int32 codes
    assert costs.held == costs.uplink + costs.once + USER
    assert costs.flops > 0


def test_pipelines_change_what_is_sent(prepared):
    plain = measured(prepared, "trained", "none")
    half = measured(prepared, "trained", "none", upload="bfloat16")
    assert (half.uplink, half.downlink) == (TABLE // 2, TABLE)
    assert half.flops == plain.flops


def test_every_epoch_and_every_batch_counts(prepared):
    """This model is so large that its epochs stay a loop in the program of a round."""

    phase = make_phases(strategy("none", "hash(num_buckets=2000)"), prepared)[-1]
    training, split = phase.algorithm.training, prepared.split
    server = init_server(phase.model, jax.random.key(0), phase.fitted.values)
    private = init_private(phase.model, jax.random.key(1), 1, server)
    client = median_client(split.counts)
    _, arguments = client_round(training, server, private, split, client, 0)

    def flops(**changes):
        train = functools.partial(train_client, training._replace(**changes))
        return count_flops(train, arguments)

    one, two = (flops(local_epochs=epochs) for epochs in (1, 2))
    step = two - one
    assert step > 0.9 * one
    batches = -(-int(arguments[3].mask.sum()) // 4)
    assert batches > 2
    assert flops(local_epochs=1, local_batch_size=4) > 0.9 * batches * step


def test_flops_of_products_by_hand():
    x = jnp.ones((10, 10))

    def nested(x):
        def outer(carry, _):
            return jax.lax.scan(lambda c, _: (c @ x, None), carry, length=3)

        return jax.lax.scan(lambda c, i: (outer(c, i)[0], None), x, length=2)[0]

    assert count_flops(nested, (x,)) == 6 * 2 * 10**3
    assert time_calls(nested, (x,), seconds=0.0) > 0


def test_the_median_client_is_one_of_them():
    for counts in itertools.permutations([0, 3, 4, 9]):
        assert counts[median_client(np.array(counts))] == 3
    assert median_client(np.array([7])) == 0
