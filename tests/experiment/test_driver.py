"""Whole runs: phases, folders, figures, and what happens when one goes wrong."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from fedpeft_jax.core.errors import DivergedError, InputError
from fedpeft_jax.data import from_frame
from fedpeft_jax.experiment import (
    Reporter,
    RunFolder,
    configure,
    evaluate,
    load_variables,
    make_phases,
    run,
)
from fedpeft_jax.federated import (
    AGGREGATORS,
    LOSSES,
    published_negatives,
    with_server_optimizer,
)
from fedpeft_jax.federated.aggregators import mean
from fedpeft_jax.federated.cohorts import sample_cohort
from fedpeft_jax.federated.losses import bpr
from tests import toys
from tests.small_runs import (
    FEATURES,
    NUM_ITEMS,
    NUM_USERS,
    SETTINGS,
    TRAINED,
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
        for client in sample_cohort(config.run.seed, round_, NUM_USERS, 6)
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
        warm_up_rounds=None, latent_scale=1.0,
    )  # fmt: skip
    table = leaf(warm.variables["rows"], FULL)
    assert leaf(finished().variables["frozen"], FULL).tobytes() == table.tobytes()
    assert np.any(leaf(finished().variables["params"], B))


def test_no_warm_up_freezes_the_pretrained_table(tmp_path):
    run = finish(tmp_path / "cold", warm_up_rounds=0, rounds=2)
    assert [entry["phase"] for entry in run.history] == ["peft"]
    alone = finish(tmp_path / "alone", warm_up_rounds=0, rounds=2, embedding="none")
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
        assert len(sample_cohort(seed, 0, NUM_USERS, 6)) == 6


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
    last = np.full(NUM_USERS, -1)
    for round_ in range(6):
        last[sample_cohort(0, round_, NUM_USERS, 6)] = round_
    np.testing.assert_array_equal(state.last_round, last)
    assert state.best.variables is None


class Counted:
    """BPR that counts how often it is traced."""

    def __init__(self):
        self.traces = 0

    def __call__(self, positives, negatives, mask):
        self.traces += 1
        return bpr(positives, negatives, mask)


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


# Phases of another kind


def test_a_new_phase_is_one_function():
    """Halfway through the main phase the users start anew; nothing is compiled."""

    def forget_users(state):
        private = jax.tree.map(jnp.zeros_like, state.rounds.private)
        return state._replace(rounds=state.rounds._replace(private=private))

    losses = Counted()

    def phases(config, prepared):
        *before, main = make_phases(config, prepared)
        counted = main.algorithm.training._replace(loss=losses)
        main = main._replace(algorithm=main.algorithm._replace(training=counted))
        again = main._replace(enter=forget_users)
        return [*before, main._replace(stop=4), again]

    result = run(configure(**SETTINGS), phases=phases)
    first = losses.traces
    assert result.state.phase_rounds.tolist() == [2, 2, 2]
    # A user that took no part after round 4 is still where the phase put it.
    idle = result.state.last_round < 4
    assert idle.any() and not np.any(
        np.asarray(result.variables["private"]["user"])[idle]
    )
    found = result.summary["communication"]["phases"]
    assert [phase["name"] for phase in found] == ["warm_up", "peft", "peft"]
    assert [phase["rounds"] for phase in found] == [2, 2, 2]
    # The repeated phase has the model and the algorithm of the one before it.
    losses.traces = 0
    run(configure(**{**SETTINGS, "rounds": 4}), phases=lambda c, p: phases(c, p)[:2])
    assert losses.traces == first


def test_a_phase_may_change_the_algorithm_and_its_states_start_anew():
    """Stages with state and another server optimizer, after the warm-up."""

    def phases(config, prepared):
        warm_up, main = make_phases(config, prepared)
        changed = main.algorithm._replace(
            upload=toys.error_feedback(),
            release=toys.noisy_sums(0.0),
            aggregator=with_server_optimizer(mean(), optax.adam(0.1)),
        )
        middle = main._replace(stop=4)
        return [warm_up, middle, main._replace(algorithm=changed, enter=lambda s: s)]

    result = run(configure(**SETTINGS), phases=phases)
    assert int(result.state.rounds.release) == 2  # rounds of the last phase
    assert result.state.phase_rounds.tolist() == [2, 2, 2]
    memory = np.asarray(jax.tree.leaves(result.state.rounds.upload)[0])
    assert memory.shape[0] == NUM_USERS and memory.any()


def test_the_leak_detector_reads_the_sampler_of_the_phases():
    """A sampler that a caller puts into the phases, and no setting, leaks."""

    def phases(config, prepared):
        sampler = published_negatives(NUM_ITEMS, exclude_held_out=True)
        return [
            phase._replace(
                algorithm=phase.algorithm._replace(
                    training=phase.algorithm.training._replace(sampler=sampler)
                )
            )
            for phase in make_phases(config, prepared)
        ]

    given = run(configure(**TRAINED, train_negatives="unseen")).summary
    found = run(configure(**TRAINED), phases=phases).summary
    assert found["metrics"] == given["metrics"]
    assert found["baselines"]["log_odds"] == given["baselines"]["log_odds"]


@pytest.mark.parametrize("stops", [(), (2, 2), (4, 3, 6), (2, 4), (2, 8)])
def test_phases_must_ascend_and_fill_the_run(stops):
    def phases(config, prepared):
        main = make_phases(config, prepared)[-1]
        return [main._replace(stop=stop) for stop in stops]

    with pytest.raises(InputError, match="let the stops ascend, and the last one be"):
        run(configure(**SETTINGS), phases=phases)


def test_pipelines_change_the_bytes_and_are_reported(tmp_path):
    plain = finished()
    stages = {"upload": "clip_by_norm(max_norm=0.05), bfloat16", "download": "bfloat16"}
    coded = finish(tmp_path / "coded", **stages)
    whole, half = (
        r.summary["communication"]["uplink_bytes_per_client_round"]
        for r in (plain, coded)
    )
    assert half == {name: size / 2 for name, size in whole.items()}
    clipped = [entry["figures"]["clipped"] for entry in coded.history]
    assert all(0 < share <= 1 for share in clipped)
    assert all("figures" not in entry for entry in plain.history)
    assert coded.summary["metrics"] != plain.summary["metrics"]


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
    summary = run(config, folder=folder, reporter=listener, validate=validate).summary
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


# What goes wrong


class Listener(Reporter):
    """Keeps the notes."""

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
def test_a_model_that_cannot_be_fitted_ends_the_run_before_its_first_round(
    settings, message, tmp_path
):
    class NoRound(Reporter):
        def progress(self, task, done, total, **values):
            assert task != "rounds"

    folder = RunFolder(tmp_path / "run", "run")
    with pytest.raises(InputError, match=message):
        run(configure(**SETTINGS | settings), reporter=NoRound(), folder=folder)
    assert list(folder.path.iterdir()) == []  # and the folder may be used again


def test_what_a_strategy_learned_is_noted_and_in_the_summary():
    listener = Listener()
    settings = {**SETTINGS, "rounds": 2, "warm_up_rounds": 0}
    settings |= {
        "embedding": "rq(num_codebooks=2, codebook_size=6, quantizer='kmeans')"
    }
    summary = run(configure(**settings), reporter=listener).summary
    figures = summary["pretraining"]["embedding"]
    norms = figures["residual_norms"]
    assert norms[0] > norms[1] > norms[2]
    note = next(note for note in listener.notes if note.startswith("rq:"))
    for words in ("residual norms", "dead codes 0 0", "distinct codes", "perplexity"):
        assert words in note


def test_a_non_finite_update_stops_the_run_and_nothing_before_it_is_lost(tmp_path):
    settings = {**SETTINGS, "warm_up_rounds": 0, "eval_every": 1, "rounds": 8}
    config = configure(**{**settings, "client_optimizer": "sgd(learning_rate=1e12)"})
    folder = RunFolder(tmp_path / "run", "run")
    with pytest.raises(DivergedError) as caught:
        run(config, folder=folder)
    done = len(history(folder.path)) if (folder.path / "metrics.jsonl").exists() else 0
    message = str(caught.value)
    assert f"round {done + 1} gave a non-finite update" in message
    assert "`client_optimizer`" in message and "\n" not in message
    kept = load_variables(folder.path / "checkpoints" / "last_finite")
    assert all(np.all(np.isfinite(value)) for _, value in flat(kept))
    assert not (folder.path / "summary.json").exists()
    assert json.loads((folder.path / "config.json").read_text()) == config.flat()


def test_a_divergence_after_good_rounds_keeps_them(tmp_path, monkeypatch):
    """The fifth round's update is not finite; the fourth's model is on disk."""

    def breaks_in_the_fifth_round():
        plain = mean()

        def apply(sums, state, server, key):
            step, _ = plain.apply(sums, (), server, key)
            spoil = jnp.where(state == 2, jnp.nan, 1.0)  # two rounds were warm-up
            return jax.tree.map(lambda x: x * spoil, step), state + 1

        return plain._replace(init=lambda server: jnp.int32(0), apply=apply)

    monkeypatch.setitem(AGGREGATORS, "breaks", breaks_in_the_fifth_round)
    folder = RunFolder(tmp_path / "run", "run")
    with pytest.raises(DivergedError, match="round 5 gave"):
        run(configure(**SETTINGS, aggregator="breaks"), folder=folder)
    assert [entry["round"] for entry in history(folder.path)] == [2, 4]
    kept = load_variables(folder.path / "checkpoints" / "last_finite")
    expected = finish(tmp_path / "four", rounds=4).variables
    np.testing.assert_allclose(leaf(kept, B), leaf(expected, B), rtol=1e-6)


def test_a_disk_that_fills_up_names_the_file_and_keeps_the_lines_before(tmp_path):
    class FillsUp(RunFolder):
        def append_metrics(self, entry):
            if entry["round"] == 4:
                raise InputError(f"cannot write {self.path}: No space left on device")
            super().append_metrics(entry)

    folder = FillsUp(tmp_path / "run", "run")
    with pytest.raises(InputError, match="No space left"):
        run(configure(**SETTINGS), folder=folder)
    assert [entry["round"] for entry in history(folder.path)] == [2]


def test_progress_reaches_the_end_and_names_its_figures():
    class Listener(Reporter):
        seen: list = []  # noqa: RUF012

        def progress(self, task, done, total, **values):
            if task == "rounds":
                self.seen.append((done, total, set(values)))

    run(configure(**SETTINGS), reporter=Listener())
    assert [done for done, *_ in Listener.seen] == [2, 4, 6]
    assert Listener.seen[-1][1] == 6
    assert Listener.seen[-1][2] == {"loss", "valid NDCG@10", "rounds/s"}
