"""Cells that share a program have the results of runs that are alone."""

import functools
import signal
import threading

import jax
import numpy as np
import pytest

from fedpeft_jax.core.errors import DivergedError, InputError, StoppedError
from fedpeft_jax.experiment import RunFolder, configure, run
from fedpeft_jax.federated import LOSSES
from fedpeft_jax.grids.shared_program import Remembered, run_together
from tests.helpers import Counted
from tests.small_runs import SETTINGS, results, small_runs

PLAIN = {
    **SETTINGS,
    "full": "trained",
    "embedding": "none",
    "full_init": "random",
    "warm_up_rounds": None,
    "rounds": 4,
    "client_optimizer": "sgd(learning_rate=1.0)",
    "baselines": "most_popular",
}
"""One phase, and no item text."""

MERGED = {**SETTINGS, "merge_every": 2, "baselines": "most_popular"}
"""A warm-up and two main phases."""


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


def cells_of(settings, *changes):
    return [configure(**{**settings, **change}) for change in changes]


@functools.cache
def alone(config):
    return run(config)


def difference(actual, expected):
    """The largest difference of the variables of two runs."""
    pairs = jax.tree.map(
        lambda a, b: np.max(np.abs(np.asarray(a, float) - np.asarray(b, float))),
        actual.variables,
        expected.variables,
    )
    return max(jax.tree.leaves(pairs))


def check_as_alone(cells, how, exact):
    outcomes = run_together(cells, how=how)
    for cell, outcome in zip(cells, outcomes, strict=True):
        expected = alone(cell)
        assert difference(outcome, expected) <= (0 if exact else 1e-5)
        summary, wanted = outcome.summary, expected.summary
        assert summary["communication"] == wanted["communication"]
        assert not exact or summary["metrics"] == wanted["metrics"]
        found = jax.tree.leaves(summary["metrics"])
        np.testing.assert_allclose(found, jax.tree.leaves(wanted["metrics"]), 1e-4)
    assert difference(outcomes[0], outcomes[1]) > 1e-3


SEEDS_AND_RATES = (
    {"seed": 0},
    {"seed": 1},
    {"seed": 1, "server_optimizer": "sgd(learning_rate=2.0)"},
)


@pytest.mark.parametrize(
    ("how", "exact"),
    [
        ("threads", True),
        pytest.param("map", True, marks=pytest.mark.slow),
        ("vmap", False),
    ],
)
def test_seeds_and_rates(how, exact):
    check_as_alone(cells_of(PLAIN, *SEEDS_AND_RATES), how, exact)


def test_threads_run_cells_of_several_programs():
    changes = {"seed": 0}, {"seed": 1}, {"seed": 1, "features": 4}
    check_as_alone(cells_of(PLAIN, *changes), "threads", exact=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "exact"), [("threads", True), ("map", True), ("vmap", False)]
)
def test_warm_up_and_merges(how, exact):
    check_as_alone(cells_of(MERGED, *SEEDS_AND_RATES, {"merge_every": 3}), how, exact)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["threads", "map", "vmap"])
def test_noise_of_differential_privacy(how):
    """Cohorts of another seed have another size, and are a group of their own."""
    noises = [{"privacy": f"gaussian(noise_multiplier={z})"} for z in (1.0, 3.0)]
    settings = {**PLAIN, "server_optimizer": "sgd(learning_rate=0.1)"}
    check_as_alone(cells_of(settings, *noises, {**noises[0], "seed": 3}), how, False)


@pytest.mark.parametrize(
    "how", [pytest.param("threads", marks=pytest.mark.slow), "vmap"]
)
def test_a_diverging_cell_leaves_its_neighbour_alone(how):
    cells = cells_of(PLAIN, {"client_optimizer": "sgd(learning_rate=1e30)"}, {})
    ended = []
    diverged, healthy = run_together(
        cells, how=how, on_end=lambda cell, _: ended.append(cell)
    )
    assert isinstance(diverged, DivergedError)
    assert "round 1 gave a non-finite update" in str(diverged)
    assert difference(healthy, alone(cells[1])) <= 1e-5
    assert ended == [0, 1]


@pytest.mark.parametrize("how", [pytest.param("map", marks=pytest.mark.slow), "vmap"])
def test_a_cell_stops_early_and_the_others_go_on(how):
    still = {"server_optimizer": "sgd(learning_rate=1e-9)"}
    patient = {"early_stopping_rounds": 9}
    impatient = {"early_stopping_rounds": 1, **still}
    cells = cells_of({**PLAIN, "eval_every": 1}, impatient, patient)
    outcomes = run_together(cells, how=how)
    expected = [alone(cell) for cell in cells]
    rounds = [outcome.state.round for outcome in outcomes]
    assert rounds == [one.state.round for one in expected]
    assert rounds[0] < rounds[1] == 4
    for outcome, one in zip(outcomes, expected, strict=True):
        assert difference(outcome, one) <= 1e-5


def folders_of(path, cells):
    names = [path / f"cell{index}" for index in range(len(cells))]
    return [RunFolder(n, c.name) for n, c in zip(names, cells, strict=True)]


def in_folders(path, cells, **arguments):
    folders = folders_of(path, cells)
    try:
        return run_together(cells, folders, **arguments)
    finally:
        for folder in folders:
            folder.close()


def test_cells_that_were_stopped_at_different_rounds_continue(tmp_path):
    cells = cells_of(PLAIN, {"seed": 0}, {"seed": 1}, {"seed": 2})
    left, lock = [4], threading.Lock()

    def stop():
        with lock:
            left[0] -= 1
            return signal.SIGTERM if left[0] < 0 else None

    stopped = in_folders(tmp_path / "grid", cells, how="map", stop=stop)
    assert all(isinstance(outcome, StoppedError) for outcome in stopped)
    reasons = {outcome.reason for outcome in stopped}
    assert reasons == {f"SIGTERM stopped the run after round {n}" for n in (2, 4)} or (
        reasons == {"SIGTERM stopped the run after round 2"}
    )
    finished = in_folders(tmp_path / "grid", cells, how="map")
    assert [outcome.state.round for outcome in finished] == [4, 4, 4]
    again = in_folders(tmp_path / "grid", cells, how="map")
    assert [outcome.state for outcome in again] == [None] * 3
    whole = RunFolder(tmp_path / "whole", cells[1].name)
    run(cells[1], folder=whole)
    whole.close()
    assert results(tmp_path / "grid" / "cell1") == results(tmp_path / "whole")


@pytest.mark.parametrize(
    "how", ["threads", pytest.param("vmap", marks=pytest.mark.slow)]
)
def test_cells_share_one_trace(how, monkeypatch):
    def traces(*changes):
        monkeypatch.setitem(LOSSES, "counted", lambda: counted)
        counted = Counted()
        run_together(cells_of({**PLAIN, "loss": "counted"}, *changes), how=how)
        return counted.traces

    assert traces(*SEEDS_AND_RATES) <= 2 * traces({})


def test_bad_input_ends_its_own_cell():
    cells = cells_of(PLAIN, {"data_dir": "/nowhere", "dataset": "ml-1m"}, {})
    bad, good = run_together(cells, how="map")
    assert isinstance(bad, InputError)
    assert good.state.round == 4


def test_an_unknown_way_is_refused():
    with pytest.raises(InputError, match="use one of vmap, map, threads"):
        run_together([configure(**PLAIN)], how="magic")


def test_what_could_not_be_made_is_not_made_again():
    once, calls = Remembered(), []

    def fail():
        calls.append(1)
        raise InputError("no data")

    for _ in range(2):
        with pytest.raises(InputError, match="no data"):
            once("data", fail)
    assert len(calls) == 1
