"""The memory of a grid is predicted and bounded."""

import json
import subprocess
import sys
from itertools import pairwise

import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import load, make_split, synthetic_interactions
from fedpeft_jax.data.dataset import build
from fedpeft_jax.experiment import configure
from fedpeft_jax.experiment.memory import predict
from fedpeft_jax.experiment.reporting import format_bytes
from fedpeft_jax.grids import grid_memory
from fedpeft_jax.grids.grid_memory import (
    baseline,
    limit_cells,
    memory_bound,
    most_cells,
    most_processes,
    predict_peak,
)
from tests.helpers import ROOT

CONFIG = configure(features=8, num_candidates=10)


@pytest.fixture(scope="module")
def split():
    return make_split(build(synthetic_interactions(0, 60, 40)), CONFIG.data)[1]


def test_the_baseline_is_that_of_a_process_with_jax():
    assert 50e6 < baseline() < 1.5e9


def test_every_cell_adds_at_least_its_arrays(split):
    private = next(p.size for p in predict(CONFIG, split) if "private" in p.name)
    sizes = [predict_peak(CONFIG, split, cells) for cells in (1, 2, 3, 4)]
    assert sizes[0] > baseline()
    assert all(more - fewer > private > 0 for fewer, more in pairwise(sizes))


def test_cells_beyond_the_cores_wait_and_need_less(split, monkeypatch):
    monkeypatch.setattr(grid_memory, "num_cores", lambda: 2)
    sizes = [predict_peak(CONFIG, split, cells) for cells in (1, 2, 3, 4)]
    first, second, third = (more - fewer for fewer, more in pairwise(sizes))
    assert first > second == third


def test_more_data_and_wider_models_need_more(split):
    large = make_split(build(synthetic_interactions(0, 600, 400)), CONFIG.data)[1]
    wide = configure(features=4096, num_candidates=10)
    plain = configure(full="trained", embedding="none", full_init="random", features=8)
    one = predict_peak(CONFIG, split)
    assert predict_peak(CONFIG, large) > one
    assert predict_peak(wide, split) > one + 4 * 60 * 4096
    assert predict_peak(plain, split) < one  # no text, and one phase


def test_a_bound_limits_cells_and_processes(split):
    three, four = (predict_peak(CONFIG, split, cells) for cells in (3, 4))
    assert most_cells(CONFIG, split, three, 8) == 3
    assert most_cells(CONFIG, split, four - 1, 8) == 3
    assert most_cells(CONFIG, split, 10 * four, 8) == 8
    one = predict_peak(CONFIG, split)
    assert most_processes(CONFIG, split, 3 * one, 8) == 2  # and that of the grid
    assert most_processes(CONFIG, split, 3 * one + baseline(), 8) == 3
    assert most_processes(CONFIG, split, 30 * one, 8) == 8
    for limit in (most_cells, most_processes):
        with pytest.raises(InputError, match="`grid_memory` is .*: raise it"):
            limit(CONFIG, split, one - 1, 8)


def test_the_largest_program_of_a_grid_counts():
    """Whatever the order of the cells."""
    small = configure(features=8, rounds=30)
    wide = configure(features=2048, rounds=30, embedding="lora(rank=512)")
    _, split = make_split(load(small.data), small.data)
    one, three = (predict_peak(wide, split, cells) for cells in (1, 3))
    for configs in ([small, wide], [wide, small]):
        workers, at_once, said = limit_cells(configs, str(three), 9, 8)
        assert (workers, at_once) == (max((three - baseline()) // one, 1), 3)
        assert format_bytes(one) in said and format_bytes(three) in said


@pytest.mark.parametrize(
    ("text", "size"), [("300", 300), ("4GB", 4e9), ("1.5 gb", 1.5e9), ("20MB", 2e7)]
)
def test_sizes_are_read(text, size):
    assert memory_bound(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "4GiB", "four", "0"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(InputError, match="write bytes, or 4GB"):
        memory_bound(text)


def test_without_a_bound_it_is_the_memory_of_the_machine():
    assert (memory_bound(None) or 1e9) > 1e8


MEASURED = """
import json, resource, sys
from fedpeft_jax import configure
from fedpeft_jax.grids.shared_program import run_together
seeds = range(int(sys.argv[1]))
cells = [configure(rounds=30, warm_up_rounds=5, seed=seed) for seed in seeds]
assert all(hasattr(r, "summary") for r in run_together(cells, how="map"))
print(json.dumps(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))
"""


@pytest.mark.slow
@pytest.mark.parametrize("cells", [1, 3])
def test_the_prediction_is_no_less_than_the_peak_and_not_twice_as_much(cells):
    """Small programs leave less behind than those that the constants were taken of."""
    config = configure(rounds=30, warm_up_rounds=5)
    _, split = make_split(load(config.data), config.data)
    command = [sys.executable, "-c", MEASURED, str(cells)]
    environment = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    peak = json.loads(ran.stdout)
    assert 0.8 * peak <= predict_peak(config, split, cells) <= 2 * peak
