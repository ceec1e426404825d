"""Whole runs with differential privacy: what they report, refuse, stop and continue."""

import json
import math

import numpy as np
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.sampling import FixedCohorts, PoissonCohorts
from fedpeft_jax.experiment import configure
from fedpeft_jax.experiment.privacy_plan import plan_privacy
from fedpeft_jax.experiment.privacy_report import privacy_lines
from fedpeft_jax.privacy.accounting import Accountant
from tests.experiment.test_resume import in_folder, stopped
from tests.small_runs import (
    NUM_USERS,
    SETTINGS,
    finish,
    history,
    results,
    small_runs,
)

GAUSSIAN = {"privacy": "gaussian(noise_multiplier=1.0,clip=0.5)"}
ADAPTIVE = {"privacy": "gaussian(noise_multiplier=1.0,clip=0.5,quantile=0.5)"}
NAMES = {
    "mechanism", "model", "noise_multiplier", "clip", "epsilon", "delta", "adjacency",
    "rounds",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


@pytest.fixture(scope="module")
def private(tmp_path_factory):
    """A run with an adaptive clip and Poisson cohorts."""
    path = tmp_path_factory.mktemp("private")
    return path, in_folder(path, ADAPTIVE)


def test_a_run_reports_its_guarantee(private):
    path, (summary, _, state) = private
    found = summary["privacy"]
    assert set(found) >= NAMES
    poisson = PoissonCohorts(NUM_USERS, 0.1)
    accountant = Accountant(
        "gaussian", "central", poisson, "add_or_remove_one", 1e-5, 1.0
    )
    assert found["epsilon"] == accountant.epsilon(6)
    assert (found["model"], found["adjacency"]) == ("central", "add_or_remove_one")
    assert (found["rounds"], found["cohort"]) == (6, "poisson")
    lines = history(path)
    spent = [entry["privacy"]["epsilon"] for entry in lines]
    assert spent == [accountant.epsilon(t) for t in (2, 4, 6)]
    assert all(entry["loss"] is None for entry in lines)
    figures = {"clipped", "update_norm", "signal_to_noise", "clip"}
    assert all(set(entry["figures"]) == figures for entry in lines)
    text = "\n".join(privacy_lines(found))
    assert f"epsilon {found['epsilon']:.3g}" in text and "the server is trusted" in text
    assert summary["config"]["client_weights"] == "uniform"


def test_cohorts_of_any_size_are_counted(private):
    _, (summary, _, state) = private
    drawn = [PoissonCohorts(NUM_USERS, 0.1).draw(0, t) for t in range(6)]
    sizes = [len(cohort) for cohort in drawn]
    assert len(set(sizes)) > 2
    assert state.phase_clients.tolist() == [sum(sizes[:2]), sum(sizes[2:])]
    took_part = np.isin(np.arange(NUM_USERS), np.concatenate(drawn))
    np.testing.assert_array_equal(state.took_part, took_part)
    assert summary["faults"]["vanished_clients"] == 0


def test_a_stopped_run_continues_with_its_clip(private, tmp_path):
    path, _ = private
    stopped(tmp_path, ADAPTIVE, 3)
    in_folder(tmp_path, ADAPTIVE)
    assert results(tmp_path) == results(path)


def test_a_run_stops_before_it_exceeds_its_maximum(private, tmp_path):
    path, (summary, *_) = private
    most = history(path)[1]["privacy"]["epsilon"]  # that of four rounds
    run = finish(tmp_path / "run", **ADAPTIVE, max_epsilon=most * 1.0001)
    assert run.summary["rounds"]["run"] == 4
    assert run.summary["privacy"]["epsilon"] == most
    assert run.history[-1]["round"] == 4 and run.history[-1]["metrics"]
    with pytest.raises(InputError, match="one round alone has an epsilon of"):
        config = configure(**{**SETTINGS, **GAUSSIAN}, max_epsilon=0.01)
        plan_privacy(config, NUM_USERS)


def test_a_local_run_counts_participations(tmp_path):
    run = finish(tmp_path / "run", **GAUSSIAN, privacy_model="local", cohort="fixed")
    drawn = [FixedCohorts(NUM_USERS, 6).draw(0, t) for t in range(6)]
    most = np.bincount(np.concatenate(drawn)).max()
    found = run.summary["privacy"]
    assert found["participations"] == most > 1
    assert found["adjacency"] == "replace_one"
    accountant = Accountant(
        "gaussian", "local", FixedCohorts(NUM_USERS, 6), "replace_one", 1e-5, 1.0
    )
    assert found["epsilon"] == accountant.epsilon(int(most))
    assert run.summary["config"]["cohort"] == "fixed"
    json.dumps(run.summary, allow_nan=False)


def test_noise_from_a_target():
    config = configure(privacy="gaussian(clip=0.5)", target_epsilon=3.0, rounds=100)
    plan = plan_privacy(config, 1000)
    assert plan.accountant.adjacency == "add_or_remove_one"
    assert 2.9 < plan.epsilon(100) <= 3.0
    assert plan.mechanism.noise_multiplier == plan.accountant.noise_multiplier > 0


def test_no_noise_is_no_guarantee():
    config = configure(privacy="gaussian(noise_multiplier=0.0,clip=1.0)", rounds=50)
    plan = plan_privacy(config, 50)
    assert plan.epsilon(50) == math.inf
    assert plan.entry(50) == {"epsilon": None, "delta": 1e-5}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_epsilon": 1.0}, "no effect with `privacy=none`"),
        ({"adjacency": "replace_one"}, "no effect with `privacy=none`"),
        ({"privacy": "gaussian"}, "set `target_epsilon`"),
        ({**GAUSSIAN, "target_epsilon": 1.0}, "both determine the noise"),
        ({**GAUSSIAN, "aggregator": "row_mean"}, "set `aggregator=mean`"),
        ({**GAUSSIAN, "client_weights": "positives"}, "client_weights=uniform"),
        ({**GAUSSIAN, "early_stopping_rounds": 4}, "validation without noise"),
        ({**GAUSSIAN, "backbone": "fedpergnn"}, r"normalization='user'"),
        ({**ADAPTIVE, "privacy_model": "local"}, "central model can follow"),
        (
            {**GAUSSIAN, "privacy_model": "local", "upload": "rows"},
            "leave out `rows`",
        ),
        ({**GAUSSIAN, "delta": 1.0}, "below 1"),
        ({"privacy": "gauss"}, "unknown privacy 'gauss'"),
        (
            {**GAUSSIAN, "cohort": "fixed", "adjacency": "add_or_remove_one"},
            "cohort=poisson",
        ),
        (
            {"privacy": "laplace(noise_multiplier=1.0)", "cohort": "fixed"},
            "cohort=poisson",
        ),
        (
            {**GAUSSIAN, "privacy_model": "local", "adjacency": "add_or_remove_one"},
            "replace_one",
        ),
    ],
)
def test_what_cannot_be_accounted_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        configure(**settings)


def test_fedpergnn_without_a_statistic():
    backbone = "fedpergnn(normalization='user')"
    assert configure(**GAUSSIAN, backbone=backbone).server.cohort == "poisson"
