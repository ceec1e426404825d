"""The bytes that a run sends, against closed forms and sums by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.roles import FROZEN, num_bytes
from fedpeft_jax.experiment import configure, make_algorithm, make_model
from fedpeft_jax.experiment.communication import catch_up_bytes, summarize_traffic
from fedpeft_jax.experiment.traffic import PhaseTraffic, measure_traffic
from fedpeft_jax.federated import init_server

I, D, K = 50, 8, 3  # noqa: E741 (the shape letters of the library)
COUNTS = np.array([1, 49, 10])
CODES = 2 * I / 4  # in entries of 4 bytes: two codes per item, of one byte each


def measured(full, embedding, backbone="fedmf", **settings):
    """The traffic of the main phase, and the shapes of what the server holds."""
    config = configure(
        full=full,
        embedding=embedding,
        features=D,
        warm_up_rounds=0 if full == "frozen" else None,
        backbone=backbone,
        **settings,
    )
    model = make_model(config.model, I)
    algorithm = make_algorithm(config.training, config.server, model)
    held = jax.eval_shape(lambda: init_server(model, jax.random.key(0)))
    return measure_traffic("peft", algorithm, held, COUNTS), held


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
def test_bytes_each_way_and_of_frozen_tables(
    full, embedding, entries, frozen, backbone
):
    traffic, held = measured(full, embedding, backbone)
    if backbone == "fedncf":  # the layers 2D -> 64 -> 128 -> 64 -> 1 and their biases
        entries += 2 * D * 64 + 64 + 64 * 128 + 128 + 128 * 64 + 64 + 64
    if backbone == "fedpergnn":  # the items' degrees
        frozen += I
    assert traffic.uplink == traffic.downlink == 4 * entries
    assert num_bytes(held[FROZEN]) == 4 * frozen


def test_a_stage_changes_the_payload_that_is_counted():
    full = 4 * K * (I + D)
    spec, half = f"lora(rank={K})", {"upload": "clip_by_norm(max_norm=1.0), bfloat16"}
    assert measured("none", spec)[0][1:3] == (full, full)
    assert measured("none", spec, **half)[0][1:3] == (full / 2, full)
    assert measured("none", spec, download="bfloat16")[0][1:3] == (full, full / 2)


def test_private_parameters_are_not_counted():
    traffic, held = measured("frozen", "lora")
    assert "private" not in held
    config = configure(features=D)
    model = make_model(config.model, I)
    algorithm = make_algorithm(config.training, config.server, model)
    private = {"user": jnp.zeros((1000, D))}
    with_private = {**held, "private": private}
    assert measure_traffic("peft", algorithm, with_private, COUNTS) == traffic


@pytest.mark.parametrize("num_negatives", [1, 2, 100])
def test_touched_rows_come_with_their_ids(num_negatives):
    """A client touches its positives and their distinct negatives: I rows at most."""
    traffic, _ = measured("none", f"lora(rank={K})", num_negatives=num_negatives)
    rows = [n + min(n * num_negatives, I - n) for n in (1, 49, 10)]
    assert max(rows) <= I
    row, shared = 4 * K + 4, 4 * D * K
    assert traffic.touched == pytest.approx(shared + sum(rows) / 3 * row)


def test_shared_parameters_alone_have_no_rows():
    traffic, _ = measured("none", "hash(num_buckets=7)")
    assert traffic[:4] == ("peft", 4 * 7 * D, 4 * 7 * D, 4.0 * 7 * D)


def test_summary_by_hand():
    frozen = {"frozen": {"t": jnp.zeros(10)}, "private": {"u": jnp.zeros(99)}}
    found = summarize_traffic(
        phases=[
            PhaseTraffic("warm_up", 100, 90, 31.4),
            PhaseTraffic("peft", 20, 20, 11.8),
        ],
        rounds=[2, 3],
        participations=[10, 15],
        answers=[10, 15],
        missed=[0],
        slowest=[3, 0],
        merges=0,
        participants=7,
        server=frozen,
        full_bytes=100,
    )
    # 5 clients per round: 2 rounds of 190 and 3 of 40; then the table.
    total = 5 * (2 * 190 + 3 * 40) + 280
    assert found == {
        "uplink_bytes_per_client_round": {"warm_up": 100, "peft": 20},
        "downlink_bytes_per_client_round": {"warm_up": 90, "peft": 20},
        "touched_rows_bytes_per_client_round": {"warm_up": 31, "peft": 12},
        "phases": [
            {
                "name": "warm_up",
                "rounds": 2,
                "uplink_bytes_per_client_round": 100,
                "downlink_bytes_per_client_round": 90,
            },
            {
                "name": "peft",
                "rounds": 3,
                "uplink_bytes_per_client_round": 20,
                "downlink_bytes_per_client_round": 20,
            },
        ],
        "one_time_bytes": 40 * 7,
        "merges": 0,
        "catch_up_bytes": 0,
        "slowest_fetch_bytes": 0,
        "link": None,
        "total_bytes": total,
        "full_total_bytes": 2 * 5 * (5 * 100),
        "fraction_of_full": total / 5000,
        "reveals": [],
    }


def test_a_repeated_phase_name_overwrites_nothing():
    found = summarize_traffic(
        phases=[PhaseTraffic("peft", 10, 10, 1.0), PhaseTraffic("peft", 30, 30, 1.0)],
        rounds=[1, 2],
        participations=[5, 10],
        answers=[5, 10],
        missed=[0],
        slowest=[3, 0],
        merges=0,
        participants=1,
        server={},
        full_bytes=100,
    )
    assert found["total_bytes"] == 5 * 20 + 10 * 60
    assert [p["uplink_bytes_per_client_round"] for p in found["phases"]] == [10, 30]
    assert found["uplink_bytes_per_client_round"] == {"peft": 10}


def test_a_full_table_costs_all_of_itself():
    traffic, held = measured("trained", "none")
    found = summarize_traffic(
        phases=[traffic],
        rounds=[9],
        participations=[18],
        answers=[18],
        missed=[0],
        slowest=[3, 0],
        merges=0,
        participants=3,
        server=held,
        full_bytes=4 * I * D,
    )
    assert found["fraction_of_full"] == 1.0
    assert found["one_time_bytes"] == 0
    assert found["total_bytes"] == 9 * 2 * 2 * 4 * I * D


@pytest.mark.parametrize("participants", [1, 3, 50])
def test_one_time_bytes_go_to_each_participant_once(participants):
    found = summarize_traffic(
        phases=[PhaseTraffic("peft", 4, 4, 4.0)],
        rounds=[1000],
        participations=[1000],
        answers=[1000],
        missed=[0],
        slowest=[3, 0],
        merges=0,
        participants=participants,
        server=measured("frozen", "lora")[1],
        full_bytes=4 * I * D,
    )
    assert found["one_time_bytes"] == participants * 4 * I * D
    assert found["total_bytes"] == 8000 + found["one_time_bytes"]


def test_a_client_that_vanishes_downloads_and_does_not_upload():
    found = summarize_traffic(
        phases=[PhaseTraffic("warm_up", 100, 90, 1.0), PhaseTraffic("peft", 20, 10, 1)],
        rounds=[2, 3],
        participations=[10, 15],
        answers=[9, 0],
        missed=[0],
        slowest=[3, 0],
        merges=0,
        participants=7,
        server={},
        full_bytes=100,
    )
    assert found["total_bytes"] == 10 * 90 + 9 * 100 + 15 * 10
    assert found["full_total_bytes"] == 100 * (10 + 9 + 15)


@pytest.mark.parametrize(
    ("embedding", "factors"),
    [
        (f"lora(rank={K})", K * (I + D)),
        ("hash(num_buckets=7)", 7 * D),
        ("rq(num_codebooks=2, codebook_size=9)", 2 * 9 * D),
    ],
)
def test_what_a_merge_adds_is_what_clients_train(embedding, factors):
    traffic, held = measured("frozen", embedding)
    assert traffic.factors == 4 * factors
    assert traffic.frozen == num_bytes(held[FROZEN])
    assert measured("frozen", embedding, "fedncf")[0].factors == 4 * factors


def test_a_returning_client_fetches_factors_or_the_table():
    phase = PhaseTraffic("peft", 1, 1, 1.0, factors=30, table=70, frozen=75)
    assert catch_up_bytes(phase, [100]) == 0
    assert catch_up_bytes(phase, [100, 1, 1, 1, 2]) == 30 + 60 + 70 + 2 * 70
    found = summarize_traffic(
        phases=[phase],
        rounds=[3],
        participations=[15],
        answers=[15],
        missed=[10, 4, 1],
        slowest=[1, 0, 4, 2],
        merges=2,
        participants=7,
        server={},
        full_bytes=100,
    )
    assert found["catch_up_bytes"] == 4 * 30 + 60
    assert found["total_bytes"] == 15 * 2 + 4 * 30 + 60
    assert found["slowest_fetch_bytes"] == 75 + 4 * 30 + 2 * 60
