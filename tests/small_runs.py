"""Whole runs in seconds: 60 users, 40 items, and programs that compile once.

The compiler does not optimise, and runs that differ in nothing it sees share their
programs.
"""

import contextlib
import functools
import importlib
import json
import pathlib
import tempfile
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from fedpeft_jax.data import DATASETS, Source, synthetic_interactions
from fedpeft_jax.experiment import Callback, RunFolder, cli, configure, run
from fedpeft_jax.experiment.checkpoint import load_variables

NUM_USERS, NUM_ITEMS, FEATURES = 60, 40, 8

SETTINGS: dict[str, Any] = {
    "rounds": 6,
    "warm_up_rounds": 2,
    "eval_every": 2,
    "features": FEATURES,
    "num_candidates": 10,
    "max_buckets": 1,
    "pretraining": (
        "autoencoder(hidden=(16,), epochs=100, learning_rate=0.01, noise=0.1)"
    ),
    "server_optimizer": "sgd(learning_rate=1.0)",
}
"""A run with both phases: 2 rounds that train the table, 4 that train LoRA."""

TRAINED = {**SETTINGS, "full": "trained", "embedding": "none", "warm_up_rounds": None}
"""The paper's Full, whose program is the warm-up's of `SETTINGS`."""

BACKBONES = ("fedmf", "fedncf", "pfedrec", "fedpergnn")
STRATEGIES: dict[str, dict[str, Any]] = {
    "full": {"full": "trained", "embedding": "none", "warm_up_rounds": 0},
    "lora": {"embedding": "lora(rank=2)"},
    "hash": {"embedding": "hash(num_buckets=8)"},
    "rq": {"embedding": "rq(num_codebooks=2, codebook_size=6, quantizer='kmeans')"},
}
"""Settings of every recommender and every embedding, with both or with one phase."""

_FOLDER = tempfile.TemporaryDirectory()
_JAX = {
    "jax_disable_most_optimizations": True,
}


class Finished(NamedTuple):
    """What a run left behind."""

    summary: dict
    variables: dict
    history: list
    path: pathlib.Path


@contextlib.contextmanager
def small_runs():
    """The context that every run here is made in."""
    before = {name: jax.config.values[name] for name in _JAX}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            DATASETS,
            "synthetic",
            Source(lambda s: synthetic_interactions(s.data_seed, NUM_USERS, NUM_ITEMS)),
        )
        for name, value in _JAX.items():
            jax.config.update(name, value)
        try:
            yield
        finally:
            for name, value in before.items():
                jax.config.update(name, value)


def finish(path, **settings):
    """Runs `SETTINGS`, except for the given ones, into a new folder."""
    config = configure(**{**SETTINGS, **settings})
    result = run(config, folder=RunFolder(path, config.name))
    variables = load_variables(path / "checkpoints" / "final")
    return Finished(result.summary, variables, history(path), path)


def history(path):
    """The entries of a run's `metrics.jsonl`."""
    lines = (path / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def results(path):
    """Everything that a finished run says, without its times and its folder."""
    summary = json.loads((path / "summary.json").read_text())
    for part in ("time", "memory", "versions", "config"):
        summary.pop(part)
    return {
        "summary": summary,
        "metrics": [
            {name: value for name, value in entry.items() if name != "seconds"}
            for entry in history(path)
        ],
        "per_user": (path / "per_user.parquet").read_bytes(),
        "variables": {
            "/".join(names): (str(value.dtype), value.shape, value.tobytes())
            for names, value in flat(load_variables(path / "checkpoints" / "final"))
            if isinstance(value, np.ndarray)
        },
    }


@functools.cache
def finished():
    """The run of `SETTINGS`, made once."""
    return finish(pathlib.Path(_FOLDER.name) / "finished")


@functools.cache
def finished_trained():
    """The run of `TRAINED`, made once."""
    return finish(pathlib.Path(_FOLDER.name) / "trained", **TRAINED)


def leaf(tree, name):
    """The array of that name, wherever it is in a tree."""
    found = {path[-1]: value for path, value in flat(tree)}
    return np.asarray(found[name])


def flat(tree, path=()):
    """The paths and the leaves of a nest of dictionaries."""
    if not isinstance(tree, dict):
        yield path, tree
        return
    for name, child in tree.items():
        yield from flat(child, (*path, name))


class Listener(Callback):
    """Keeps the notes and the progress of a run."""

    def __init__(self):
        self.notes, self.tasks = [], []

    def note(self, text):
        self.notes.append(text)

    def progress(self, task, done, total, **values):
        self.tasks.append((task, done, total, set(values)))


@functools.cache
def load_command(name):
    """The module of a command, with its flags defined."""
    command = importlib.import_module(f"fedpeft_jax.commands.{name}")
    command.define_flags()
    return command


def run_cli(*arguments, script="run", **settings):
    """The exit code of a command with these arguments after those of `SETTINGS`."""
    module = load_command(script)
    common = {} if script in ("recommend", "report", "pareto") else SETTINGS
    given = [f"--{k}={v}" for k, v in {**common, **settings}.items()]
    with flagsaver.flagsaver():
        flags.FLAGS.unparse_flags()
        try:
            return module.main(cli.parse_flags([script, *given, *arguments]))
        except SystemExit as stop:
            return stop.code
