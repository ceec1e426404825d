"""Cells in several processes: the same bits, deaths of processes, signals, kills."""

import collections
import json
import os
import random
import signal
import subprocess
import sys
import time

import polars as pl
import pytest

from fedpeft_jax.core.errors import InputError, StoppedError
from fedpeft_jax.grids import processes as module
from fedpeft_jax.grids.axes import read_sweep
from fedpeft_jax.grids.cells import expand
from fedpeft_jax.grids.execution import Context, Watcher
from fedpeft_jax.grids.processes import choose_next, processes
from fedpeft_jax.grids.table import MEASURED
from tests.helpers import ROOT
from tests.small_runs import SETTINGS, finished, results, run_cli, small_runs

SMALL = {k: v for k, v in SETTINGS.items() if k != "pretraining"}
FAKE = """
import json, os, signal, sys, time
def stop(*_):
    print(json.dumps({"status": "stopped", "error": ""}), flush=True)
    os._exit(143)
signal.signal(signal.SIGTERM, stop)
for line in sys.stdin:
    seed = json.loads(line)["settings"]["seed"]
    print(json.dumps({"rounds": 3, "ndcg": 0.25}), flush=True)
    if seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if seed == 5:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    if seed == 2:
        sys.exit("no such thing")
    if seed == 9:
        time.sleep(60)
    print(json.dumps({"status": "finished", "error": None}), flush=True)
"""


class Watched(Watcher):
    def __init__(self):
        self.begun, self.ended, self.notes = collections.Counter(), {}, []
        self.seen = {}

    def note(self, text):
        self.notes.append(text)

    def begin(self, cell):
        self.begun[cell.config.run.seed] += 1

    def rounds(self, cell, done, ndcg):
        self.seen[cell.config.run.seed] = (done, ndcg)

    def end(self, cell, outcome):
        self.ended[cell.config.run.seed] = outcome


def cells_of(*seeds, **settings):
    return expand({**SMALL, **settings}, [[{"seed": seed} for seed in seeds]])


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(module, "WORKER", (sys.executable, "-c", FAKE))


def test_a_process_that_dies_is_one_failed_cell(fake, tmp_path):
    """The dead cell is tried twice, and the others run."""
    watched = Watched()
    processes(cells_of(0, 1, 2, 5, 3), Context(tmp_path, watched, lambda: None, 2))
    assert watched.begun == {0: 1, 1: 2, 2: 2, 5: 2, 3: 1}
    status = {seed: outcome.status for seed, outcome in watched.ended.items()}
    assert status == {
        0: "finished",
        3: "finished",
        **dict.fromkeys((1, 2, 5), "failed"),
    }
    assert "killed" in watched.ended[1].error and "2 times" in watched.ended[1].error
    assert "no such thing" in watched.ended[2].error
    assert "ended by SIGTERM" in watched.ended[5].error  # a signal to it alone
    assert len(watched.notes) == 3 and watched.seen[3] == (3, 0.25)


def test_a_signal_is_passed_on(fake, tmp_path):
    watched = Watched()
    asked = []

    def stop():
        if 9 in watched.seen:
            asked.append(True)
        return signal.SIGTERM if asked else None

    with pytest.raises(StoppedError, match="SIGTERM stopped the grid"):
        processes(cells_of(0, 9, 8), Context(tmp_path, watched, stop, 1))
    assert set(watched.ended) == {0} and set(watched.begun) == {0, 9}


def test_a_process_that_cannot_be_started_is_one_line(tmp_path):
    (tmp_path / ".logs").write_text("")
    with pytest.raises(InputError, match="cannot be started.*--executor=one"):
        processes(cells_of(0), Context(tmp_path, Watched(), lambda: None, 2))


def test_what_runs_next():
    """One pretraining is made once, and one program is compiled once if possible."""
    axes = [read_sweep("seed=0:2"), read_sweep("embedding=lora(rank=2)|hash")]
    zero_lora, zero_hash, one_lora, one_hash = cells = expand(SMALL, axes)
    assert choose_next(cells, []) == 0
    # Seed 0 is being pretrained: a cell of seed 1 with another program comes next.
    assert choose_next([zero_hash, one_lora, one_hash], [zero_lora]) == 2
    assert choose_next([zero_hash, one_lora], [zero_lora]) == 1
    assert choose_next([zero_hash], [zero_lora]) is None
    random_table = expand({**SMALL, "full_init": "random"}, axes)
    assert choose_next([random_table[1]], [random_table[0]]) == 0  # nothing to wait for


def table_bytes(out):
    return pl.read_csv(out / "grid.csv").drop(MEASURED).write_csv()


GRID = (
    *("--rounds=60", "--eval_every=4", "--checkpoint_every=1", "--seeds=0"),
    "--sweep=client_optimizer.learning_rate=0.01|0.02|1e10",
)


def start(out, *arguments, grid=GRID):
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": os.environ["FEDPEFT_JAX_TEST_PROGRAMS"],
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = (sys.executable, "-m", "tests.grids.killed_grid", *grid, f"--out={out}")
    return subprocess.Popen(
        (*command, *arguments),
        env=environment,
        cwd=ROOT,
        text=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(out, *arguments):
    process = start(out, *arguments)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 1, errors  # one cell diverges
    assert errors.count("error: ") == 1
    return table_bytes(out)


def kill_somewhere(out, rng, *arguments):
    """Kills a grid with SIGKILL, some time after a checkpoint was written."""
    process = start(out, *arguments)
    seen = set(out.glob("*/checkpoints/round-*"))
    while process.poll() is None and not (
        set(out.glob("*/checkpoints/round-*")) - seen or rng.random() < 0.0005
    ):
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 1.0))
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


def test_a_killed_cell_in_a_process_has_the_bits_of_the_run_alone(tmp_path):
    """The process of the cell ends with that of the grid, and this one goes on."""
    flags = ("--executor=processes", "--workers=1", "--seeds=0", "--vary=rounds=6")
    process = start(tmp_path, *flags, grid=("--checkpoint_every=1",))
    cell = tmp_path / "rounds=6,seed=0"
    while process.poll() is None and not [*cell.glob("checkpoints/round-*")]:
        time.sleep(0.002)
    process.kill()
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    assert json.loads((tmp_path / "grid.json").read_text())["cells"][0]["status"] == (
        "running"
    )
    with small_runs():
        again = ("--executor=one", *flags[1:])
        assert run_cli(*again, script="grid", out=tmp_path) == 0
        assert results(cell) == results(finished().path)


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["one", "processes"])
def test_a_killed_grid_ends_with_the_same_table(tmp_path, executor):
    straight = finish(tmp_path / "straight", "--executor=one")
    rng = random.Random(executor)
    flags = (f"--executor={executor}", "--workers=2")
    kills = [kill_somewhere(tmp_path / "killed", rng, *flags) for _ in range(10)]
    assert sum(kills) >= 5
    assert finish(tmp_path / "killed", *flags) == straight


@pytest.mark.slow
def test_a_signal_saves_every_cell_and_says_how_to_go_on(tmp_path):
    flags = ("--executor=processes", "--workers=2", "--rounds=100000")
    process = start(tmp_path, *flags)
    while process.poll() is None and len({*tmp_path.glob("*/metrics.jsonl")}) < 2:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith("SIGTERM stopped the grid; everything is saved")
    assert f"--out={tmp_path}" in last
