"""Real processes that are killed at random moments, and then run to their end."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.helpers import ROOT
from tests.small_runs import BACKBONES, STRATEGIES, results

COMMON = {
    "rounds": 40,
    "warm_up_rounds": 15,
    "eval_every": 4,
    "checkpoint_every": 1,
    "server_optimizer": "adam(learning_rate=0.1)",
}
KILLS = 4  # of every run, 64 in all
QUICK = ("fedmf", "lora")


@pytest.fixture(scope="module")
def environment():
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": os.environ["FEDPEFT_JAX_TEST_PROGRAMS"],
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def start(path, settings, environment):
    module = "tests.experiment.killed_run"
    command = [sys.executable, "-m", module, str(path), json.dumps(settings)]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment, cwd=ROOT, text=True, stdout=pipe, stderr=pipe
    )


def finish(path, settings, environment):
    process = start(path, settings, environment)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return errors


def wait_for(process, holds):
    """Waits until `holds()` is true; returns False if the process ends before."""
    while not holds():
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    return True


def lines(path):
    metrics = path / "metrics.jsonl"
    return len(metrics.read_bytes().splitlines()) if metrics.exists() else 0


def kill_somewhere(path, settings, environment, rng, moment):
    """Kills a run while it writes a checkpoint, or some time after a checkpoint."""
    process = start(path, settings, environment)
    seen = set((path / "checkpoints").glob("round-*"))
    writing = path / "checkpoints"
    if moment == "writing a checkpoint":
        wait_for(process, lambda: any(writing.glob(".round-*.partial")))
        time.sleep(rng.uniform(0, 0.05))
    elif moment == "in the rounds":
        wait_for(process, lambda: set(writing.glob("round-*")) - seen)
        time.sleep(rng.uniform(0, 1.0))
    else:
        time.sleep(rng.uniform(0, 6.0))
    process.kill()
    process.communicate()
    return process.returncode == -signal.SIGKILL


MOMENTS = ("writing a checkpoint", "in the rounds", "at any time")


@pytest.mark.parametrize(
    ("backbone", "strategy"),
    [
        pytest.param(b, s, marks=() if (b, s) == QUICK else pytest.mark.slow)
        for b in BACKBONES
        for s in STRATEGIES
    ],
)
def test_a_killed_run_ends_with_the_same_bytes(
    backbone, strategy, environment, tmp_path
):
    settings = {**COMMON, "backbone": backbone, **STRATEGIES[strategy]}
    finish(tmp_path / "straight", settings, environment)
    rng = random.Random(f"{backbone} {strategy}")
    moments = itertools.islice(itertools.cycle(MOMENTS), KILLS)
    killed = [
        kill_somewhere(tmp_path / "killed", settings, environment, rng, moment)
        for moment in moments
    ]
    assert any(killed)
    finish(tmp_path / "killed", settings, environment)
    assert results(tmp_path / "killed") == results(tmp_path / "straight")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_finishes_the_rounds_saves_and_says_how_to_go_on(
    name, environment, tmp_path
):
    number = getattr(signal, name)
    settings = {**COMMON, "rounds": 100_000}
    process = start(tmp_path / "run", settings, environment)
    assert wait_for(process, lambda: lines(tmp_path / "run") >= 5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    last = errors.strip().splitlines()[-1]
    assert last.startswith(f"{name} stopped the run after round ")
    assert f"--out={tmp_path / 'run'}" in last and "Traceback" not in errors
    done = int(last.split("round ")[1].split(";")[0])
    newest = max((tmp_path / "run" / "checkpoints").glob("round-*")).name
    assert newest == f"round-{done:06d}"


def test_a_second_signal_stops_at_once(environment, tmp_path):
    """The first one is received while the process has much to do before its rounds."""
    settings = {**COMMON, "rounds": 100_000}
    process = start(tmp_path / "run", settings, environment)
    assert wait_for(process, lambda: lines(tmp_path / "run") >= 1)
    process.send_signal(signal.SIGSTOP)  # so that both wait for it
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    first = process.stderr.readline()
    while "once more to stop at once" not in first:
        first = process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT)


def test_two_processes_never_share_a_folder(environment, tmp_path):
    settings = {**COMMON, "rounds": 100_000}
    first = start(tmp_path / "run", settings, environment)
    assert wait_for(first, lambda: lines(tmp_path / "run") >= 1)
    second = start(tmp_path / "run", settings, environment)
    _, errors = second.communicate(timeout=60)
    assert second.returncode == 2
    assert "another process is writing to" in errors and "Traceback" not in errors
    first.kill()
    first.communicate()
    third = start(tmp_path / "run", settings, environment)  # no lock was left behind
    assert wait_for(third, lambda: lines(tmp_path / "run") >= 3)
    third.kill()
    third.communicate()


@pytest.mark.slow
def test_a_disk_without_space_for_a_checkpoint_is_one_error(environment, tmp_path):
    """A limit on the size of files stands for the full disk."""
    settings = {**COMMON, "features": 64, "file_size_limit": 10_000}
    environment = {**environment, "JAX_COMPILATION_CACHE_DIR": ""}
    process = start(tmp_path / "run", settings, environment)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith(f"error: cannot write {tmp_path / 'run'}")
    assert "Traceback" not in errors
    assert not list((tmp_path / "run" / "checkpoints").glob("round-*"))
