"""Whole runs: phases, folders, figures, and what happens when one goes wrong."""

import json

import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import training
from fedpeft_jax.experiment.checkpoint import load_parameters
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.reporting import Reporter
from fedpeft_jax.experiment.run_folder import RunFolder
from fedpeft_jax.experiment.training import DivergedError, Run
from tests.small_runs import (
    FEATURES,
    NUM_ITEMS,
    NUM_USERS,
    SETTINGS,
    finish,
    finished,
    finished_trained,
    history,
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
}
FULL, A, B = "full", "A", "B"


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


def leaf(tree, name):
    """The array of that name, wherever it is."""
    found = {path[-1]: value for path, value in flat(tree)}
    return np.asarray(found[name])


def flat(tree, path=()):
    if not isinstance(tree, dict):
        yield path, tree
        return
    for name, child in tree.items():
        yield from flat(child, (*path, name))


def assert_same_result(one, two):
    """Bit for bit, but for time, memory and where it was written."""
    for (path, a), (other, b) in zip(flat(one.params), flat(two.params), strict=True):
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
    assert run.summary["config"] == RunConfig(**SETTINGS).settings()
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
    """6 clients a round, 2 warm-up and 4 PEFT rounds, both ways, and the table once."""
    sent, config = finished().summary["communication"], RunConfig(**SETTINGS)
    table, lora = 4 * NUM_ITEMS * FEATURES, 4 * 4 * (NUM_ITEMS + FEATURES)
    assert sent["uplink_bytes_per_client_round"] == {"warm_up": table, "peft": lora}
    drawn = {
        client
        for round_ in range(6)
        for client in training.plan_cohorts(
            training.make_tiles(np.full(NUM_USERS, 9), 6),
            np.full(NUM_USERS, 9),
            cohort_size=6,
            seed=config.seed,
            first_round=round_,
            num_rounds=1,
        ).client_ids.ravel()
    }
    assert sent["one_time_bytes"] == table * len(drawn)
    assert sent["total_bytes"] == 2 * 6 * (2 * table + 4 * lora) + table * len(drawn)
    assert sent["fraction_of_full"] == sent["total_bytes"] / (2 * 6 * 6 * table)
    assert finished_trained().summary["communication"]["fraction_of_full"] == 1


def test_the_history_has_a_line_an_evaluation():
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


def test_roles_of_the_final_parameters():
    params = finished().params
    assert leaf(params["frozen"], FULL).shape == (NUM_ITEMS, FEATURES)
    assert leaf(params["rows"], A).shape == (NUM_ITEMS, 4)
    assert leaf(params["params"], B).shape == (FEATURES, 4)
    assert leaf(params["private"], "user").shape == (NUM_USERS, FEATURES)
    assert leaf(finished_trained().params["rows"], FULL).shape == (NUM_ITEMS, FEATURES)


def test_the_table_that_is_frozen_is_the_one_that_was_warmed_up(tmp_path):
    """Two rounds of the trained table end in the bits that PEFT then never moves."""
    warm = finish(
        tmp_path / "warm", rounds=2, full="trained", embedding="none",
        warm_up_rounds=None, latent_scale=1.0,
    )  # fmt: skip
    table = leaf(warm.params["rows"], FULL)
    assert leaf(finished().params["frozen"], FULL).tobytes() == table.tobytes()
    assert np.any(leaf(finished().params["params"], B))


def test_no_warm_up_freezes_the_pretrained_table(tmp_path):
    run = finish(tmp_path / "cold", warm_up_rounds=0, rounds=2)
    assert [entry["phase"] for entry in run.history] == ["peft"]
    alone = finish(tmp_path / "alone", warm_up_rounds=0, rounds=2, embedding="none")
    np.testing.assert_array_equal(
        leaf(run.params["frozen"], FULL), leaf(alone.params["frozen"], FULL)
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
        flat(run.params), flat(finished().params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6, err_msg=str(path))


def test_another_seed_gives_another_result_of_other_cohorts(tmp_path, monkeypatch):
    seeds, plan = set(), training.plan_cohorts

    def spy(*args, seed, **kwargs):
        seeds.add(seed)
        return plan(*args, seed=seed, **kwargs)

    monkeypatch.setattr(training, "plan_cohorts", spy)
    run = finish(tmp_path / "other", seed=1)
    assert seeds == {1}
    other, base = (leaf(r.params["params"], B) for r in (run, finished()))
    assert np.any(other != base)


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    summary = Run(RunConfig(**SETTINGS)).execute()
    assert summary["metrics"] == finished().summary["metrics"]
    assert list(tmp_path.iterdir()) == []


def test_one_program_a_phase(tmp_path, monkeypatch):
    made = []
    original = training.make_run_rounds
    monkeypatch.setattr(
        training, "make_run_rounds", lambda *a: made.append(a) or original(*a)
    )
    finish(tmp_path / "run", eval_every=1)
    assert len(made) == 2


# Early stopping


def test_early_stopping_ends_the_run_with_its_best_model(tmp_path, monkeypatch):
    """As if the run had been asked for the best round's number of rounds."""
    listener = Listener()
    settings = {**SETTINGS, "rounds": 40, "eval_every": 2}
    values = iter([0.9, 0.1, 0.3, 0.2, 0.3])  # the first is the warm-up's: not counted
    monkeypatch.setattr(training, "valid_ndcg", lambda entry: next(values, 0.0))
    monkeypatch.setattr(training.Run, "_show", lambda *args: None)
    config = RunConfig(**settings, early_stopping_rounds=4)
    folder = RunFolder(tmp_path / "stopped", "run")
    summary = Run(config, folder, listener).execute()
    assert summary["rounds"] == {"run": 10, "evaluated": 6}
    assert [entry["round"] for entry in history(folder.path)] == [2, 4, 6, 8, 10]
    assert any("stopped after round 10" in note for note in listener.notes)
    # Bytes are those of the rounds that ran: 2 of warm-up and 8 more.
    sent = summary["communication"]
    each = sent["uplink_bytes_per_client_round"]
    moving = 2 * 6 * (2 * each["warm_up"] + 8 * each["peft"])
    assert sent["total_bytes"] == moving + sent["one_time_bytes"]
    assert sent["full_total_bytes"] == 2 * 6 * 10 * each["warm_up"]

    monkeypatch.undo()
    whole = finish(tmp_path / "whole", rounds=6)
    kept = load_parameters(folder.path / "checkpoints" / "final")
    for (path, a), (other, b) in zip(flat(kept), flat(whole.params), strict=True):
        assert path == other
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), path
    assert summary["metrics"] == whole.summary["metrics"]


def test_a_run_that_gets_better_to_the_end_is_not_stopped(tmp_path, monkeypatch):
    values = iter([0.1, 0.2, 0.3])
    monkeypatch.setattr(training, "valid_ndcg", lambda entry: next(values, 0.0))
    monkeypatch.setattr(training.Run, "_show", lambda *args: None)
    run = finish(tmp_path / "run", early_stopping_rounds=2)
    assert run.summary["rounds"] == {"run": 6, "evaluated": 6}


# What goes wrong


class Listener(Reporter):
    """Keeps what it hears."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"embedding": "rq(codebook_size=41, quantizer='kmeans')"},
            "codebook_size=41 is larger than the catalogue of 40 items",
        ),
    ],
)
def test_what_cannot_be_fitted_ends_the_run_before_its_first_round(
    settings, message, monkeypatch
):
    monkeypatch.setattr(training, "make_run_rounds", None)  # no round is ever made
    with pytest.raises(InputError, match=message):
        Run(RunConfig(**SETTINGS | settings)).execute()


def test_what_a_strategy_learned_is_noted_and_in_the_summary():
    listener = Listener()
    settings = {**SETTINGS, "rounds": 2, "warm_up_rounds": 0}
    settings |= {
        "embedding": "rq(num_codebooks=2, codebook_size=6, quantizer='kmeans')"
    }
    summary = Run(RunConfig(**settings), None, listener).execute()
    figures = summary["pretraining"]["embedding"]
    norms = figures["residual_norms"]
    assert norms[0] > norms[1] > norms[2]
    note = next(note for note in listener.notes if note.startswith("rq:"))
    for words in ("residual norms", "dead codes 0 0", "distinct codes", "perplexity"):
        assert words in note


def test_a_non_finite_update_stops_the_run_and_nothing_before_it_is_lost(tmp_path):
    settings = {**SETTINGS, "warm_up_rounds": 0, "eval_every": 1, "rounds": 8}
    config = RunConfig(
        **{**settings, "client_optimizer": "sgd(learning_rate=1e12)"},
    )
    folder = RunFolder(tmp_path / "run", "run")
    with pytest.raises(DivergedError) as caught:
        Run(config, folder).execute()
    done = len(history(folder.path)) if (folder.path / "metrics.jsonl").exists() else 0
    message = str(caught.value)
    assert f"round {done + 1} gave a non-finite update" in message
    assert "--client_optimizer" in message and "\n" not in message
    kept = load_parameters(folder.path / "checkpoints" / "last_finite")
    assert all(np.all(np.isfinite(value)) for _, value in flat(kept))
    assert not (folder.path / "summary.json").exists()
    assert json.loads((folder.path / "config.json").read_text()) == config.settings()


def test_a_divergence_after_good_rounds_keeps_them(tmp_path, monkeypatch):
    """The fifth round's report says non-finite; the fourth's model is on disk."""
    original = training.make_run_rounds

    def make(*args):
        run = original(*args)

        class Spoiled:
            def lower(self, *arguments):
                compiled = run.lower(*arguments).compile()

                def call(state, *rest):
                    # No round runs, and the report says why.
                    spoil = int(state.round) == 4
                    rest = (*rest[:-1], rest[-1] * (not spoil))
                    state, report = compiled(state, *rest)
                    return state, report._replace(finite=np.bool_(not spoil))

                call.compile = lambda: call
                return call

        return Spoiled()

    monkeypatch.setattr(training, "make_run_rounds", make)
    folder = RunFolder(tmp_path / "run", "run")
    with pytest.raises(DivergedError, match="round 5 gave"):
        Run(RunConfig(**SETTINGS), folder).execute()
    assert [entry["round"] for entry in history(folder.path)] == [2, 4]
    kept = load_parameters(folder.path / "checkpoints" / "last_finite")
    expected = finish(tmp_path / "four", rounds=4).params
    np.testing.assert_array_equal(leaf(kept, B), leaf(expected, B))


def test_a_full_disk_names_the_file_and_keeps_the_lines_before(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run", "run")
    append = folder.append_metrics

    def fail_later(entry):
        if entry["round"] == 4:
            raise InputError(f"cannot write {folder.path}: No space left on device")
        append(entry)

    monkeypatch.setattr(folder, "append_metrics", fail_later)
    with pytest.raises(InputError, match="No space left"):
        Run(RunConfig(**SETTINGS), folder).execute()
    assert [entry["round"] for entry in history(folder.path)] == [2]


def test_progress_reaches_the_end_and_names_its_figures():
    class Listener(Reporter):
        seen: list = []  # noqa: RUF012

        def progress(self, task, done, total, **values):
            if task == "rounds":
                self.seen.append((done, total, set(values)))

    Run(RunConfig(**SETTINGS), None, Listener()).execute()
    assert [done for done, *_ in Listener.seen] == [2, 4, 6]
    assert Listener.seen[-1][1] == 6
    assert Listener.seen[-1][2] == {"loss", "valid NDCG@10", "rounds/s"}
