"""Runs whose clients fail: what is counted, sent, reported and continued."""

import jax.numpy as jnp
import pytest

from fedpeft_jax.core.errors import DivergedError, InputError
from fedpeft_jax.experiment import configure, run
from fedpeft_jax.federated import LOSSES
from fedpeft_jax.federated.losses import bpr
from tests.experiment.test_resume import after, in_folder, stopped
from tests.small_runs import (
    NUM_USERS,
    SETTINGS,
    finished,
    history,
    results,
    small_runs,
)

FAULTS = {
    "dropout_rate": 0.5,
    "straggler_rate": 0.5,
    "sign_flip_rate": 0.2,
    "on_nonfinite": "drop",
    "loss": "breaks",
}


def breaks():
    """BPR that is not finite for clients with few items, a third of all."""

    def loss(positives, negatives, mask):
        few = jnp.sum(mask) < 17
        return bpr(positives, negatives, mask) * jnp.where(few, jnp.nan, 1.0)

    return loss


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(LOSSES, "breaks", breaks)
        yield


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """The folder and the result of a run with every kind of fault."""
    path = tmp_path_factory.mktemp("faulty")
    return path, in_folder(path, FAULTS)


def test_a_run_counts_its_faults(faulty):
    path, (summary, _, state) = faulty
    clients, answers = state.phase_clients, state.phase_answers
    dropped = state.phase_dropped
    assert clients.tolist() == [12, 24]
    assert all(answers > 0) and all(answers < clients)
    assert 0 < dropped.sum() < answers.sum()
    faults = summary["faults"]
    assert faults["vanished_clients"] == clients.sum() - answers.sum()
    assert faults["dropped_clients"] == dropped.sum()
    assert 0 < faults["sign_flipping_clients"] < NUM_USERS / 2
    # An entry has the means of two rounds.
    figures = [entry["figures"] for entry in history(path)]
    assert 2 * sum(f["vanished"] for f in figures) == faults["vanished_clients"]
    assert 2 * sum(f["dropped"] for f in figures) == faults["dropped_clients"]


def test_a_run_counts_the_bytes_of_the_answers(faulty):
    path, (summary, _, state) = faulty
    traffic, expected = summary["communication"], 0
    for phase, clients, answers in zip(
        traffic["phases"], state.phase_clients, state.phase_answers, strict=True
    ):
        expected += phase["downlink_bytes_per_client_round"] * clients
        expected += phase["uplink_bytes_per_client_round"] * answers
    assert traffic["total_bytes"] == expected + traffic["one_time_bytes"]
    assert history(path)[-1]["bytes"] == traffic["total_bytes"]
    whole = finished().summary["communication"]
    assert traffic["one_time_bytes"] == whole["one_time_bytes"]
    assert traffic["total_bytes"] < whole["total_bytes"]


def test_a_run_without_faults_says_so():
    assert finished().summary["faults"] == {
        "vanished_clients": 0,
        "dropped_clients": 0,
        "sign_flipping_clients": 0,
    }


def test_a_continued_run_has_the_same_faults(faulty, tmp_path):
    stopped(tmp_path, FAULTS, calls=1)
    in_folder(tmp_path, FAULTS, stop=after(100))
    assert results(tmp_path) == results(faulty[0])


def test_a_round_without_an_answer_has_no_loss(tmp_path):
    settings = {"dropout_rate": 0.999, "rounds": 2, "warm_up_rounds": 0}
    result = in_folder(tmp_path, settings)
    assert result.summary["faults"]["vanished_clients"] == 12
    (entry,) = history(tmp_path)
    assert entry["loss"] is None
    assert entry["figures"] == {"vanished": 6.0}
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_an_update_that_is_not_finite_stops_a_run_and_the_message_has_a_way_on():
    with pytest.raises(DivergedError, match="`on_nonfinite=drop`"):
        run(configure(**{**SETTINGS, "loss": "breaks"}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout_rate": 1.0}, "`dropout_rate=1.0` must be at least 0 and below 1"),
        ({"straggler_rate": 0.1, "local_epochs": 1}, "`local_epochs` to at least 2"),
        ({"sign_flip_scale": 2.0}, "set `sign_flip_rate`, or leave it out"),
        ({"sign_flip_rate": -0.1}, "`sign_flip_rate=-0.1` must be at least 0"),
        ({"on_nonfinite": "ignore"}, "use one of stop, drop"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(InputError, match=message):
        configure(**settings)
