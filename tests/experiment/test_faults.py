"""What goes wrong in a run, what is kept of it, and what a run reports."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fedpeft_jax.core.errors import DivergedError, InputError
from fedpeft_jax.experiment import (
    RunFolder,
    configure,
    load_variables,
    run,
)
from fedpeft_jax.federated import (
    AGGREGATORS,
)
from fedpeft_jax.federated.aggregators import mean
from tests.small_runs import (
    SETTINGS,
    Listener,
    finish,
    flat,
    history,
    leaf,
    small_runs,
)

B = "B"


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


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
    folder, listener = RunFolder(tmp_path / "run", "run"), Listener()
    with pytest.raises(InputError, match=message):
        run(configure(**SETTINGS | settings), callbacks=[listener], folder=folder)
    assert all(task[0] != "rounds" for task in listener.tasks)
    assert list(folder.path.iterdir()) == []  # and the folder may be used again


def test_what_a_strategy_learned_is_noted_and_in_the_summary():
    listener = Listener()
    settings = {**SETTINGS, "rounds": 2, "warm_up_rounds": 0}
    settings |= {
        "embedding": "rq(num_codebooks=2, codebook_size=6, quantizer='kmeans')"
    }
    summary = run(configure(**settings), callbacks=[listener]).summary
    figures = summary["pretraining"]["embedding"]
    norms = figures["residual_norms"]
    assert norms[0] > norms[1] > norms[2]
    note = next(note for note in listener.notes if note.startswith("rq:"))
    for words in ("residual norms", "dead codes 0 0", "distinct codes", "perplexity"):
        assert words in note


def test_a_non_finite_update_stops_the_run_and_nothing_before_it_is_lost(tmp_path):
    settings = {**SETTINGS, "warm_up_rounds": 0, "eval_every": 1, "rounds": 8}
    config = configure(**{**settings, "client_optimizer": "sgd(learning_rate=1e20)"})
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


@pytest.mark.slow
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
    listener = Listener()
    run(configure(**SETTINGS), callbacks=[listener])
    rounds = [task for task in listener.tasks if task[0] == "rounds"]
    assert [done for _, done, *_ in rounds] == [2, 4, 6]
    assert rounds[-1][2:] == (6, {"loss", "valid NDCG@10", "rounds/s"})
