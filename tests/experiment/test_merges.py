"""Runs with merges: their phases, what survives, and who fetches what."""

import json

import jax
import numpy as np
import pytest

from fedpeft_jax.experiment import configure, make_phases, prepare, run
from fedpeft_jax.experiment.clients import plan_rounds
from fedpeft_jax.experiment.phases import enter_phase, start
from fedpeft_jax.experiment.state import variables_of
from fedpeft_jax.federated.pipelines.top_k import top_k
from tests.small_runs import FEATURES, NUM_ITEMS, NUM_USERS, SETTINGS, small_runs

MERGING = {**SETTINGS, "merge_every": 2, "rounds": 9, "latent_scale": 1.0}


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


@pytest.mark.parametrize(
    ("warm_up", "rounds", "every", "stops"),
    [
        (2, 9, 2, [2, 4, 6, 8, 9]),
        (2, 8, 2, [2, 4, 6, 8]),  # no merge after the last round
        (2, 9, 7, [2, 9]),
        (2, 9, 100, [2, 9]),
        (2, 9, 0, [2, 9]),
        (0, 5, 3, [3, 5]),
        (9, 9, 2, [9]),
    ],
)
def test_phases_end_after_every_so_many_rounds(warm_up, rounds, every, stops):
    config = configure(
        **{
            **MERGING,
            "rounds": rounds,
            "warm_up_rounds": warm_up,
            "merge_every": every,
        }
    )
    phases = make_phases(config, prepare(config))
    assert [phase.stop for phase in phases] == stops
    main = [phase for phase in phases if phase.main]
    assert len({(id(phase.model), id(phase.algorithm)) for phase in main}) <= 1


def test_a_merge_keeps_scores_and_private_parameters():
    config = configure(**MERGING)
    phases = make_phases(config, prepare(config))
    state = start(0, phases, NUM_USERS)
    assert int(state.version) == -1
    state = enter_phase(state, phases, 1)
    assert int(state.version) == 0
    before = variables_of(state)
    merged = enter_phase(state, phases, 2)
    after = variables_of(merged)
    assert int(merged.version) == 1
    embedding = phases[1].model.item_embedding

    def vectors(variables):
        return embedding.apply(
            {role: tree.get("item_embedding", {}) for role, tree in variables.items()}
        )

    np.testing.assert_allclose(vectors(after), vectors(before), atol=1e-6)
    np.testing.assert_array_equal(after["private"]["user"], before["private"]["user"])


def test_catch_up_bytes_follow_from_who_took_part():
    """Against a loop over the plan of the cohorts."""
    config = configure(**{**MERGING, "rounds": 40, "embedding": "lora(rank=1)"})
    result = run(config)
    traffic = result.summary["communication"]
    from fedpeft_jax.experiment.clients import make_clients

    prepared = prepare(config)
    phases = make_phases(config, prepared)
    sampler = phases[0].algorithm.training.sampler
    clients = make_clients(config, prepared.split, sampler)
    factors = 4 * (NUM_ITEMS + FEATURES)
    table = 4 * NUM_ITEMS * FEATURES
    held, expected, slowest = {}, 0, 0
    for round_ in range(2, 40):
        version = (round_ - 2) // 2
        (cohort, *_) = plan_rounds(clients, round_).client_ids
        fetched = []
        for client in cohort.tolist():
            if client in held:
                fetched.append(min((version - held[client]) * factors, table))
                expected += fetched[-1]
            else:
                fetched.append(table)
            held[client] = version
        slowest += max(fetched)
    assert expected > 0
    assert traffic["catch_up_bytes"] == expected
    assert 0 < traffic["slowest_fetch_bytes"] == slowest < 38 * table
    assert traffic["merges"] == 18
    moving = 6 * 2 * (2 * table + 38 * factors)  # 6 of 60 clients a round, both ways
    assert traffic["one_time_bytes"] == table * int(result.state.took_part.sum())
    assert traffic["total_bytes"] == moving + traffic["one_time_bytes"] + expected


def test_merges_change_the_result_and_zero_is_no_merge():
    without = {**MERGING, "merge_every": 0}
    tables = [
        run(configure(**settings)).variables["rows"]["item_embedding"]
        for settings in (MERGING, without, {**without, "merge_every": 8})
    ]
    different, same = (
        np.array_equal(tables[1]["compressed"]["A"], t["compressed"]["A"])
        for t in (tables[0], tables[2])
    )
    assert same and not different


def test_a_run_with_merges_grows_as_if_it_had_never_stopped(tmp_path):
    whole = run(configure(**MERGING, out=str(tmp_path / "a")))
    for rounds in (5, 9):
        part = {**MERGING, "rounds": rounds, "out": str(tmp_path / "b")}
        again = run(configure(**part))
    for name in ("total_bytes", "catch_up_bytes"):
        found = again.summary["communication"][name]
        assert found == whole.summary["communication"][name]
    np.testing.assert_array_equal(
        whole.variables["frozen"]["item_embedding"]["full"],
        again.variables["frozen"]["item_embedding"]["full"],
    )
    assert again.summary["metrics"] == whole.summary["metrics"]


def test_a_merge_starts_the_upload_states_of_its_own_phase_anew():
    """Also where all phases were given another algorithm, which they share."""
    config = configure(**MERGING)
    phases = make_phases(config, prepare(config))
    sparse = phases[1].algorithm._replace(upload=top_k(k=2))
    changed = [phase._replace(algorithm=sparse) for phase in phases[1:]]
    state = start(0, changed, NUM_USERS)
    sizes = [x.shape for x in jax.tree.leaves(state.rounds.upload)]
    kept = jax.tree.map(lambda x: x + 1, state.rounds.upload)
    state = state._replace(rounds=state.rounds._replace(upload=kept))
    merged = enter_phase(state, changed, 1).rounds.upload
    assert sizes and [x.shape for x in jax.tree.leaves(merged)] == sizes
    assert not any(np.any(x) for x in jax.tree.leaves(merged))


def test_figures_of_the_rounds_before_a_merge_are_kept(tmp_path):
    """Merges fall between two lines of `metrics.jsonl`."""
    settings = {**MERGING, "merge_every": 3, "dropout_rate": 0.3, "rounds": 8}
    run(configure(**settings, out=str(tmp_path)))
    lines = [
        json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    faults = json.loads((tmp_path / "summary.json").read_text())["faults"]
    starts = [0, *(line["round"] for line in lines)]
    total = sum(
        (line["round"] - start_) * line["figures"]["vanished"]
        for start_, line in zip(starts, lines, strict=False)
    )
    assert total == pytest.approx(faults["vanished_clients"])
