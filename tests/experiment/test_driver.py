"""Whole runs: their summary, their phases, their reproducibility, early stopping."""

import json

import numpy as np
import pytest

from fedpeft_jax.backbones import BACKBONES, FedMF
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.sampling import FixedCohorts
from fedpeft_jax.data import from_frame
from fedpeft_jax.experiment import (
    RunFolder,
    configure,
    evaluate,
    load_variables,
    run,
)
from fedpeft_jax.federated import (
    LOSSES,
)
from tests.helpers import Counted
from tests.small_runs import (
    FEATURES,
    NUM_ITEMS,
    NUM_USERS,
    SETTINGS,
    Listener,
    finish,
    finished,
    finished_trained,
    flat,
    history,
    leaf,
    small_runs,
)

# The keys that outside tools rely on.
CONTRACT = {
    "format": None,
    "config": None,
    "dataset": {"users", "evaluated_users", "items", "train_pairs", "split"},
    "metrics": {"test", "valid"},
    "best_valid": {"round", "metrics"},
    "baselines": {"most_popular", "log_odds", "text_neighbours", "random"},
    "slices": {"user_activity", "item_popularity"},
    "protocol": {"unsound", "log_odds_over_popularity"},
    "communication": {
        "uplink_bytes_per_client_round",
        "downlink_bytes_per_client_round",
        "one_time_bytes",
        "total_bytes",
        "fraction_of_full",
    },
    "time": {
        "load_s",
        "pretrain_s",
        "compile_s",
        "rounds_s",
        "rounds_per_s",
        "evaluate_s",
    },
    "memory": {"peak_rss_bytes"},
    "versions": None,
    "warnings": None,
}
FULL, A, B = "full", "A", "B"


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


def assert_same_result(one, two):
    """Bit for bit, but for time, memory and where it was written."""
    for (path, a), (other, b) in zip(
        flat(one.variables), flat(two.variables), strict=True
    ):
        assert path == other
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), path
    for key in ("metrics", "best_valid", "baselines", "communication", "dataset"):
        assert one.summary[key] == two.summary[key], key


# The contract


def test_the_summary_holds_what_tools_rely_on():
    run = finished()
    assert json.loads((run.path / "summary.json").read_text()) == run.summary
    assert run.summary["format"] == 1
    for key, inner in CONTRACT.items():
        assert key in run.summary
        assert inner is None or inner <= set(run.summary[key]), key
    assert run.summary["config"] == configure(**SETTINGS).flat()
    assert run.summary["rounds"] == {"run": 6, "evaluated": 6}
    for target in ("test", "valid"):
        for holder in (run.summary["metrics"], *run.summary["baselines"].values()):
            for ranking in ("sampled", "full"):
                names = set(holder[target][ranking])
                assert {"hit_rate@10", "ndcg@10", "mrr"} <= names
    sent = run.summary["communication"]
    assert set(sent["uplink_bytes_per_client_round"]) == {"warm_up", "peft"}
    assert (
        sent["uplink_bytes_per_client_round"]
        == (sent["downlink_bytes_per_client_round"])
    )


def test_bytes_by_hand():
    """6 clients per round, 2 + 4 rounds of two phases, both ways; the table once."""
    sent, config = finished().summary["communication"], configure(**SETTINGS)
    table, lora = 4 * NUM_ITEMS * FEATURES, 4 * 4 * (NUM_ITEMS + FEATURES)
    assert sent["uplink_bytes_per_client_round"] == {"warm_up": table, "peft": lora}
    drawn = {
        client
        for round_ in range(6)
        for client in FixedCohorts(NUM_USERS, 6).draw(config.run.seed, round_)
    }
    assert sent["one_time_bytes"] == table * len(drawn)
    assert sent["total_bytes"] == 2 * 6 * (2 * table + 4 * lora) + table * len(drawn)
    assert sent["fraction_of_full"] == sent["total_bytes"] / (2 * 6 * 6 * table)
    assert finished_trained().summary["communication"]["fraction_of_full"] == 1


def test_the_history_has_one_line_per_evaluation():
    run = finished()
    assert [entry["round"] for entry in run.history] == [2, 4, 6]
    assert [entry["phase"] for entry in run.history] == ["warm_up", "peft", "peft"]
    for entry in run.history:
        assert {"loss", "metrics", "bytes", "seconds"} <= set(entry)
    assert run.history[0]["bytes"] == 2 * 6 * 2 * 4 * NUM_ITEMS * FEATURES
    last, best = run.history[-1]["metrics"]["valid"], run.summary["best_valid"]
    assert last["sampled"] == run.summary["metrics"]["valid"]["sampled"]
    values = {e["round"]: e["metrics"]["valid"] for e in run.history}
    assert values[best["round"]] == best["metrics"]
    assert best["metrics"]["sampled"]["ndcg@10"] == max(
        value["sampled"]["ndcg@10"] for value in values.values()
    )


# Phases


def test_roles_of_the_final_variables():
    variables = finished().variables
    assert leaf(variables["frozen"], FULL).shape == (NUM_ITEMS, FEATURES)
    assert leaf(variables["rows"], A).shape == (NUM_ITEMS, 4)
    assert leaf(variables["params"], B).shape == (FEATURES, 4)
    assert leaf(variables["private"], "user").shape == (NUM_USERS, FEATURES)
    assert leaf(finished_trained().variables["rows"], FULL).shape == (
        NUM_ITEMS,
        FEATURES,
    )


def test_the_table_that_is_frozen_is_the_one_that_was_warmed_up(tmp_path):
    """Two rounds of the trained table end in the bits that PEFT then never moves."""
    warm = finish(
        tmp_path / "warm", rounds=2, full="trained", embedding="none",
        warm_up_rounds=None, latent_scale=0.3,
    )  # fmt: skip
    table = leaf(warm.variables["rows"], FULL)
    assert leaf(finished().variables["frozen"], FULL).tobytes() == table.tobytes()
    assert np.any(leaf(finished().variables["params"], B))


def test_no_warm_up_freezes_the_pretrained_table(tmp_path):
    run = finish(tmp_path / "cold", warm_up_rounds=0, rounds=2)
    assert [entry["phase"] for entry in run.history] == ["peft"]
    alone = finish(
        tmp_path / "alone", warm_up_rounds=0, rounds=2, embedding="none",
        latent_scale=0.3,
    )  # fmt: skip
    np.testing.assert_array_equal(
        leaf(run.variables["frozen"], FULL), leaf(alone.variables["frozen"], FULL)
    )
    assert alone.summary["communication"]["uplink_bytes_per_client_round"] == {
        "peft": 0
    }


def test_a_run_of_nothing_but_warm_up(tmp_path):
    run = finish(tmp_path / "warm", rounds=2, warm_up_rounds=2)
    assert [entry["phase"] for entry in run.history] == ["warm_up"]
    assert set(run.summary["communication"]["uplink_bytes_per_client_round"]) == {
        "warm_up"
    }


# Reproducible, whatever the shapes of the computation


def test_the_same_settings_give_the_same_bits(tmp_path):
    assert_same_result(finish(tmp_path / "again"), finished())


def test_how_often_it_is_evaluated_changes_nothing(tmp_path):
    run = finish(tmp_path / "often", eval_every=1)
    assert len(run.history) == 6
    for key in ("metrics", "baselines", "communication"):
        assert run.summary[key] == finished().summary[key]


def test_the_client_chunk_changes_nothing_but_rounding(tmp_path):
    run = finish(tmp_path / "chunked", client_chunk=2)
    for (path, a), (_, b) in zip(
        flat(run.variables), flat(finished().variables), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=str(path))


def test_another_seed_gives_another_result_of_other_cohorts(tmp_path):
    other = finish(tmp_path / "other", seed=1)
    assert np.any(
        leaf(other.variables["params"], B) != leaf(finished().variables["params"], B)
    )
    start = finish(tmp_path / "none", rounds=1, warm_up_rounds=0)
    moved = finish(tmp_path / "one", rounds=1, warm_up_rounds=0, seed=1)
    for one, seed in ((start, 0), (moved, 1)):
        sent = one.summary["communication"]["one_time_bytes"]
        assert sent == 6 * 4 * NUM_ITEMS * FEATURES
        assert len(FixedCohorts(NUM_USERS, 6).draw(seed, 0)) == 6


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(configure(**SETTINGS))
    assert result.summary["metrics"] == finished().summary["metrics"]
    assert list(tmp_path.iterdir()) == []


def test_the_result_holds_the_model_and_the_state():
    result = run(configure(**SETTINGS))
    saved = dict(flat(finished().variables))
    held = dict(flat(result.variables))
    assert held.keys() == saved.keys()
    for path, value in held.items():
        assert np.asarray(value).tobytes() == saved[path].tobytes(), path
    state = result.state
    assert state.round == 6
    assert state.phase_rounds.tolist() == [2, 4]
    assert state.phase_clients.tolist() == [12, 24]
    assert state.phase_answers.tolist() == [12, 24]
    assert state.phase_dropped.tolist() == [0, 0]
    last = np.full(NUM_USERS, -1)
    for round_ in range(6):
        last[FixedCohorts(NUM_USERS, 6).draw(0, round_)] = round_
    np.testing.assert_array_equal(state.last_round, last)
    assert state.best.variables is None


def test_one_program_per_model_however_often_it_is_validated(monkeypatch):
    counts = []
    for eval_every in (1, 6):
        counted = Counted()
        monkeypatch.setitem(LOSSES, "counted", lambda c=counted: c)
        run(configure(**{**SETTINGS, "eval_every": eval_every, "loss": "counted"}))
        counts.append(counted.traces)
    assert counts[0] == counts[1] > 0


def test_a_data_set_in_memory_replaces_the_one_that_is_named():
    rng = np.random.default_rng(0)
    rows = [(u, i, t) for u in range(20) for t, i in enumerate(rng.permutation(12)[:6])]
    data = from_frame(np.array(rows), name="mine")
    settings = {**SETTINGS, "dataset": "table", "full_init": "random"}
    config = configure(**settings, cohort_size=6)
    summary = run(config, dataset=data).summary
    assert summary["dataset"]["name"] == "mine"
    assert (summary["dataset"]["users"], summary["dataset"]["items"]) == (20, 12)
    with pytest.raises(InputError, match="`interactions=FILE`"):
        run(config)


class TracedFedMF(FedMF):
    """FedMF that counts how often its scores are traced for an evaluation."""

    traces = []  # noqa: RUF012

    def score(self, history, ids, *, deterministic):
        if deterministic:
            self.traces.append(ids is None)
        return super().score(history, ids, deterministic=deterministic)


def test_validations_and_the_final_evaluation_share_their_traces(monkeypatch):
    monkeypatch.setitem(BACKBONES, "traced", TracedFedMF)
    settings = {**SETTINGS, "backbone": "traced", "warm_up_rounds": 0}
    counts = []
    for validate in (evaluate, lambda *_: {}):
        TracedFedMF.traces.clear()
        run(configure(**settings), validate=validate)
        counts.append(len(TracedFedMF.traces))
    assert counts[0] == counts[1] > 0


# Early stopping


def validating(values):
    """A `validate` whose NDCG@10 are the given values, one after the other."""
    left = iter(values)

    def validate(program, variables, evaluator):
        metrics = evaluate(program, variables, evaluator)
        return {"sampled": {**metrics["sampled"], "ndcg@10": next(left)}}

    return validate


def test_early_stopping_ends_the_run_with_its_best_model(tmp_path):
    """The result is that of a run with the best round's number of rounds."""
    listener = Listener()
    settings = {**SETTINGS, "rounds": 40, "eval_every": 2}
    config = configure(**settings, early_stopping_rounds=4)
    folder = RunFolder(tmp_path / "stopped", "run")
    # The first value is the warm-up's, which does not count.
    validate = validating([0.9, 0.1, 0.3, 0.2, 0.3])
    summary = run(
        config, folder=folder, callbacks=[listener], validate=validate
    ).summary
    assert summary["rounds"] == {"run": 10, "evaluated": 6}
    assert [entry["round"] for entry in history(folder.path)] == [2, 4, 6, 8, 10]
    assert any("stopped after round 10" in note for note in listener.notes)
    # Bytes are those of the rounds that ran: 2 of warm-up and 8 more.
    sent = summary["communication"]
    each = sent["uplink_bytes_per_client_round"]
    moving = 2 * 6 * (2 * each["warm_up"] + 8 * each["peft"])
    assert sent["total_bytes"] == moving + sent["one_time_bytes"]
    assert sent["full_total_bytes"] == 2 * 6 * 10 * each["warm_up"]

    whole = finish(tmp_path / "whole", rounds=6)
    kept = load_variables(folder.path / "checkpoints" / "final")
    for (path, a), (other, b) in zip(flat(kept), flat(whole.variables), strict=True):
        assert path == other
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), path
    assert summary["metrics"] == whole.summary["metrics"]


def test_a_run_that_gets_better_to_the_end_is_not_stopped():
    config = configure(**SETTINGS, early_stopping_rounds=2)
    summary = run(config, validate=validating([0.1, 0.2, 0.3])).summary
    assert summary["rounds"] == {"run": 6, "evaluated": 6}
