"""What a run sends, against closed forms and sums by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.experiment.communication import (
    PhaseTraffic,
    one_time_bytes,
    summarize_traffic,
)
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.federated.state import init_server

I, D, K = 50, 8, 3  # noqa: E741 (the shape letters of the library)
COUNTS = np.array([1, 49, 10])
CODES = 2 * I / 4  # in entries of 4 bytes: two codes an item, of one byte each


def variables(full, embedding, backbone="fedmf"):
    """The shapes of what the server holds."""
    warm_up = 0 if full == "frozen" else None
    config = RunConfig(
        full=full,
        embedding=embedding,
        features=D,
        warm_up_rounds=warm_up,
        backbone=backbone,
    )
    model = config.make_model(I)
    return jax.eval_shape(lambda: init_server(model, jax.random.key(0)))


@pytest.mark.parametrize(
    ("full", "embedding", "entries", "frozen"),
    [
        ("trained", "none", I * D, 0),
        ("frozen", f"lora(rank={K})", K * (I + D), I * D),
        ("none", f"lora(rank={K})", K * (I + D), 0),
        ("trained", f"lora(rank={K})", I * D + K * (I + D), 0),
        ("frozen", "none", 0, I * D),
        ("frozen", "hash(num_buckets=7)", 7 * D, I * D + CODES),
        ("none", "hash(num_buckets=7)", 7 * D, CODES),
        ("frozen", "hash(num_buckets=7, pooling='senet')", 7 * D + 4, I * D + CODES),
        ("frozen", "rq(num_codebooks=2, codebook_size=9)", 2 * 9 * D, I * D + CODES),
        ("none", "rq(num_codebooks=2, codebook_size=9)", 2 * 9 * D, CODES),
    ],
)
@pytest.mark.parametrize("backbone", ["fedmf", "fedncf", "pfedrec", "fedpergnn"])
def test_dense_and_one_time_bytes(full, embedding, entries, frozen, backbone):
    held = variables(full, embedding, backbone)
    if backbone == "fedncf":  # the layers 2D -> 64 -> 128 -> 64 -> 1 and their biases
        entries += 2 * D * 64 + 64 + 64 * 128 + 128 + 128 * 64 + 64 + 64
    if backbone == "fedpergnn":  # the items' degrees
        frozen += I
    traffic = PhaseTraffic.of(held, COUNTS, I, num_negatives=1)
    assert traffic.dense == 4 * entries
    assert one_time_bytes(held) == 4 * frozen


def test_private_parameters_are_not_counted():
    held = variables("frozen", "lora")
    private = {"user": jnp.zeros((1000, D))}
    with_private = {**held, "private": private}
    assert PhaseTraffic.of(with_private, COUNTS, I, 1) == PhaseTraffic.of(
        held, COUNTS, I, 1
    )
    assert one_time_bytes(with_private) == one_time_bytes(held)
    assert PhaseTraffic.of({"private": private}, COUNTS, I, 1) == PhaseTraffic(0, 0.0)


@pytest.mark.parametrize("num_negatives", [1, 2, 100])
def test_touched_rows_come_with_their_ids(num_negatives):
    """A client touches its positives and their distinct negatives: I rows at most."""
    held = variables("none", f"lora(rank={K})")
    traffic = PhaseTraffic.of(held, COUNTS, I, num_negatives)
    rows = [n + min(n * num_negatives, I - n) for n in (1, 49, 10)]
    assert max(rows) <= I
    row, shared = 4 * K + 4, 4 * D * K
    assert traffic.touched == pytest.approx(shared + sum(rows) / 3 * row)


def test_shared_parameters_alone_have_no_rows():
    held = {"params": {"w": jnp.zeros((3, 5))}}
    assert PhaseTraffic.of(held, COUNTS, I, 1) == PhaseTraffic(60, 60.0)


def test_summary_by_hand():
    frozen = {"frozen": {"t": jnp.zeros(10)}, "private": {"u": jnp.zeros(99)}}
    found = summarize_traffic(
        phases={
            "warm_up": (PhaseTraffic(100, 31.4), 2),
            "peft": (PhaseTraffic(20, 11.8), 3),
        },
        cohort_size=5,
        participants=7,
        frozen=frozen,
        full_dense=100,
    )
    assert found == {
        "uplink_bytes_per_client_round": {"warm_up": 100, "peft": 20},
        "downlink_bytes_per_client_round": {"warm_up": 100, "peft": 20},
        "touched_rows_bytes_per_client_round": {"warm_up": 31, "peft": 12},
        "one_time_bytes": 40 * 7,
        # Both ways, 5 clients a round: 2 rounds of 100 and 3 of 20; then the table.
        "total_bytes": 2 * 5 * (2 * 100 + 3 * 20) + 280,
        "full_total_bytes": 2 * 5 * (5 * 100),
        "fraction_of_full": 2880 / 5000,
    }


def test_a_full_table_costs_all_of_itself():
    held = variables("trained", "none")
    traffic = PhaseTraffic.of(held, COUNTS, I, 1)
    found = summarize_traffic(
        phases={"peft": (traffic, 9)},
        cohort_size=2,
        participants=3,
        frozen=held,
        full_dense=4 * I * D,
    )
    assert found["fraction_of_full"] == 1.0
    assert found["one_time_bytes"] == 0
    assert found["total_bytes"] == 9 * 2 * 2 * 4 * I * D


@pytest.mark.parametrize("participants", [1, 3, 50])
def test_one_time_bytes_go_to_each_participant_once(participants):
    found = summarize_traffic(
        phases={"peft": (PhaseTraffic(4, 4.0), 1000)},
        cohort_size=1,
        participants=participants,
        frozen=variables("frozen", "lora"),
        full_dense=4 * I * D,
    )
    assert found["one_time_bytes"] == participants * 4 * I * D
    assert found["total_bytes"] == 8000 + found["one_time_bytes"]
