"""The trial times every way to run cells, and the fastest is chosen."""

import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import configure
from fedpeft_jax.grids.timing import Measured, quick
from fedpeft_jax.grids.trial import choose, reason
from tests.small_runs import SETTINGS, small_runs

PLAIN = {
    **SETTINGS,
    "full": "trained",
    "embedding": "none",
    "full_init": "random",
    "warm_up_rounds": None,
}


@pytest.fixture(scope="module", autouse=True)
def _small():
    with small_runs():
        yield


def test_every_way_is_timed_and_the_fastest_is_chosen():
    cells = [configure(**{**PLAIN, "seed": seed}) for seed in range(3)]
    choice = choose(cells, rounds=2, at_once=2)
    assert set(choice.measured) == {"threads", "map", "vmap"}
    seconds = {name: one.seconds(6) for name, one in choice.measured.items()}
    assert choice.how == min(seconds, key=seconds.get)
    assert all(one.waves == 2 and one.round_ms > 0 for one in choice.measured.values())
    assert choice.reason.startswith(f"3 cells: {choice.how}, ")


@pytest.mark.slow
def test_processes_are_timed_side_by_side():
    cells = [configure(**{**PLAIN, "seed": seed}) for seed in range(2)]
    choice = choose(cells, rounds=2, workers=2)
    assert choice.measured["processes"].round_ms > 0
    assert choice.measured["processes"].start_s > 0


def test_the_time_of_all_cells_counts_waves_and_the_start():
    assert Measured(start_s=7.0, round_ms=18.0, waves=4).seconds(1000) == 79.0
    found = {"map": Measured(9.0, 128.0), "vmap": Measured(1.0, 50.0)}
    assert reason("vmap", 2, 100, found) == (
        "2 cells: vmap, 6 s: 50 ms a round, 1 s to start; map 22 s: 128 ms, 9 s"
    )


def test_cells_of_different_programs_have_no_trial():
    cells = [configure(**{**PLAIN, "features": size}) for size in (4, 8)]
    with pytest.raises(InputError, match="group them by its key"):
        choose(cells)


def test_a_trial_times_the_longest_phase_and_pretrains_briefly():
    config = quick(configure(rounds=1000, warm_up_rounds=20))
    assert config.run.warm_up_rounds == 0
    assert config.text.pretraining == "autoencoder(epochs=1)"
    assert quick(configure(rounds=30, warm_up_rounds=20)).run.warm_up_rounds == 20
