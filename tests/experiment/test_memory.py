"""A run that cannot fit is refused before it begins; one that fits never is."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import make_split, synthetic_interactions
from fedpeft_jax.data.dataset import build
from fedpeft_jax.experiment import configure
from fedpeft_jax.experiment.machine import device_memory, host_memory
from fedpeft_jax.experiment.memory import check_memory, check_program, predict
from tests.helpers import ROOT
from tests.small_runs import run_cli, small_runs

USERS, ITEMS = 60, 40


def split_of(config):
    dataset = build(synthetic_interactions(0, USERS, ITEMS))
    return make_split(dataset, config.data)[1]


def parts_of(**settings):
    config = configure(**settings)
    return {part.name: part for part in predict(config, split_of(config))}


def test_the_parts_are_those_of_a_hand_computation():
    parts = parts_of(
        full="trained", embedding="none", features=8, num_candidates=10,
        server_optimizer="adam(learning_rate=0.1)",
    )  # fmt: skip
    sizes = {name: part.size for name, part in parts.items()}
    table = 4 * ITEMS * 8
    assert sizes["the server's parameters"] == table
    assert sizes["the sum of the clients' rows"] == table
    assert sizes["the private parameters of all clients"] == 4 * USERS * 8
    assert sizes["the cohort's private parameters"] == 4 * 6 * 8
    assert 2 * table <= sizes["the state of `server_optimizer`"] <= 2 * table + 16
    assert sizes["the candidates"] == 4 * USERS * 11
    assert "the copy in a checkpoint" not in sizes


@pytest.mark.parametrize(
    ("settings", "largest", "remedy"),
    [
        ({"features": 65536}, "a block in evaluation", "lower `features`"),
        ({"embedding": "lora(rank=65536)"}, "the clients' rows", "`num_negatives`"),
        ({"embedding": "hash(num_buckets=16777216)"}, "copies of shared", "`client_ch"),
        ({"backbone": "fedncf(hidden=(65536, 65536))"}, "copies of sh", "`client_chun"),
        ({"backbone": "pfedrec(hidden=(65536, 99))"}, "private", "the layers of `back"),
        ({"num_candidates": 10_000_000}, "the candidates", "lower `num_candidates`"),
        ({"num_negatives": 1_000_000}, "the clients' rows", "lower `num_negatives`"),
        ({"local_batch_size": 2**31 - 1}, "padded batches", "lower `local_batch_size`"),
    ],
)
def test_what_cannot_fit_is_refused_with_its_largest_part(settings, largest, remedy):
    config = configure(**settings)
    with pytest.raises(InputError) as caught:
        check_memory(config, split_of(config), host=10**8, device=None)
    message = str(caught.value)
    assert message.startswith("the run needs at least ") and "\n" not in message
    assert largest in message and remedy in message


def test_the_bound_is_exact_and_no_memory_refuses_nothing():
    config = configure()
    split = split_of(config)
    needed = sum(part.size for part in predict(config, split))
    check_memory(config, split, host=needed, device=None)
    check_memory(config, split, host=None, device=None)
    with pytest.raises(InputError, match="the machine has"):
        check_memory(config, split, host=needed - 1, device=None)


def test_an_accelerator_has_memory_of_its_own():
    config = configure(out="run", num_candidates=1000)
    split = split_of(config)
    parts = predict(config, split)
    device = sum(part.size for part in parts if part.device and not part.fused)
    assert device < sum(part.size for part in parts if part.device)
    host = sum(part.size for part in parts if not part.device)
    check_memory(config, split, host=host, device=device)
    with pytest.raises(InputError, match="the device has"):
        check_memory(config, split, host=host, device=device - 1)
    with pytest.raises(InputError, match="the machine has"):
        check_memory(config, split, host=host - 1, device=device)


def test_the_phase_that_needs_most_counts():
    warm_up = parts_of(features=64, tile_rows=1)  # its table is trained
    assert warm_up["the sum of the clients' rows"].size == 4 * ITEMS * 64
    alone = parts_of(features=64, tile_rows=1, warm_up_rounds=0)
    assert alone["the sum of the clients' rows"].size == 4 * ITEMS * 4


def test_a_compiled_program_that_cannot_fit_is_refused():
    program = jax.jit(lambda x: (x @ x).sum()).lower(jnp.zeros((64, 64))).compile()
    check_program(program, host=10**9, device=None)
    check_program(program, host=None, device=None)
    with pytest.raises(InputError, match="a round needs .* lower `tile_rows`"):
        check_program(program, host=1000, device=None)
    with pytest.raises(InputError, match="a round needs"):
        check_program(program, host=10**9, device=1000)


def machine(root, group, swap=0):
    (root / "proc").mkdir()
    text = f"MemTotal:  1000 kB\nMemFree: 3 kB\nSwapTotal: {swap} kB\n"
    (root / "proc" / "meminfo").write_text(text)
    (root / "sys/fs/cgroup/memory").mkdir(parents=True)
    for name, content in group.items():
        (root / "sys/fs/cgroup" / name).write_text(content)
    return root


@pytest.mark.parametrize(
    ("group", "swap", "expected"),
    [
        ({}, 0, 1000 * 1024),
        ({}, 24, 1024 * 1024),
        ({"memory.max": "max\n"}, 0, 1000 * 1024),
        ({"memory.max": "5000\n"}, 0, 5000),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, 0, 1000 * 1024),
        ({"memory/memory.limit_in_bytes": "6000\n"}, 1, 6000 + 1024),
    ],
)
def test_the_memory_of_a_machine(tmp_path, group, swap, expected):
    assert host_memory(machine(tmp_path, group, swap)) == expected


def test_the_memory_of_an_unknown_machine(tmp_path):
    assert host_memory(tmp_path) is None
    assert device_memory() is None or device_memory() > 0


def test_a_run_that_cannot_fit_is_one_line_and_claims_no_folder(capsys, tmp_path):
    settings = {"embedding": "hash(num_buckets=16777216)"}
    with small_runs():
        assert run_cli(out=tmp_path / "run", features=65536, **settings) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: the run needs at least ") and "--" in line
    assert not (tmp_path / "run").exists()


MEASURE = """
import json, resource, sys
from fedpeft_jax.data import load, make_split
from fedpeft_jax.experiment import configure, run
from fedpeft_jax.experiment.memory import predict
common = dict(rounds=1, baselines="", full_init="random", max_buckets=1,
              warm_up_rounds=0, dataset="synthetic")
peak = lambda: 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
config = configure(**common, **json.loads(sys.argv[1]))
split = make_split(load(config.data), config.data)[1]
predicted = sum(part.size for part in predict(config, split))
run(configure(**common))
before = peak()
run(config)
print(json.dumps([predicted, peak() - before]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of the peak")
@pytest.mark.parametrize(
    "settings",
    [
        {"features": 4096},
        {"features": 2048, "full": "trained", "embedding": "none"},
        {"embedding": "hash(num_buckets=65536)"},
        {"backbone": "pfedrec(hidden=(2048, 64))"},
    ],
)
def test_the_prediction_is_below_the_measured_peak(settings):
    command = [sys.executable, "-c", MEASURE, json.dumps(settings)]
    environment = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    found = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    )
    predicted, measured = json.loads(found.stdout.splitlines()[-1])
    assert predicted <= measured <= 10 * predicted
