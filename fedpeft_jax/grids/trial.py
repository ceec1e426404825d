"""A short trial that decides how the cells of a grid run: together, or in processes.

Some rounds of the longest phase are timed in every way in which the cells could run.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import Dataset
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.once import Once, make_anew
from fedpeft_jax.grids.program_key import program_key
from fedpeft_jax.grids.timing import (
    REPEATS,
    Measured,
    make_cells,
    quick,
    time_cells,
)

ROUNDS = 10
"""Rounds of a trial, which runs them twice in every way."""

AT_ONCE = 8
"""The most cells of a trial, and of one program, unless more are asked for."""


class Choice(NamedTuple):
    """How the cells of a grid run.

    Attributes:
      how: `'processes'`, `'threads'`, `'map'` or `'vmap'`.
      reason: one line with what was measured.
      measured: what was measured, by the way to run.
    """

    how: str
    reason: str
    measured: dict[str, Measured]


def choose(
    configs: Sequence[RunConfig],
    *,
    at_once: int = AT_ONCE,
    rounds: int = ROUNDS,
    workers: int = 0,
    dataset: Dataset | None = None,
    once: Once = make_anew,
) -> Choice:
    """Times some rounds of cells in every way, and returns the fastest.

    Args:
      configs: the cells, which must have the same `program_key`.
      at_once: the most cells in one process at the same time; the others follow.
      rounds: rounds of the trial; at most 25, and at most `eval_every`.
      workers: the most processes; fewer than two for none. They are not offered on an
        accelerator, which one process holds, nor for a data set in memory.
      dataset: a data set that replaces the one that the configurations name.
      once: makes what the trial and the grid have in common.

    Raises:
      InputError: for cells of different programs, or a trial that fails.
    """
    if len({program_key(config) for config in configs}) != 1:
        raise InputError("a trial needs cells of one program: group them by its key")
    size = min(len(configs), at_once)
    waves = math.ceil(len(configs) / size)
    some = [quick(config) for config in configs[:size]]
    cells = make_cells(some, rounds, dataset, once)
    measured = {
        how: time_cells(cells, how)._replace(waves=waves)
        for how in (("threads",) if size == 1 else ("threads", "map", "vmap"))
    }
    if workers > 1 and dataset is None and jax.default_backend() == "cpu":
        count = len(configs)
        measured["processes"] = _time_processes(configs[0], count, rounds, workers)
    total = max(config.run.rounds for config in configs)
    how = min(measured, key=lambda name: measured[name].seconds(total))
    return Choice(how, reason(how, len(configs), total, measured), measured)


def reason(how: str, cells: int, rounds: int, measured: Mapping[str, Measured]) -> str:
    """Returns the line that says why cells run in some way.

    Args:
      how: the way that was chosen.
      cells: the number of cells.
      rounds: rounds of a run.
      measured: what was measured, by the way to run.

    Example:
      >>> found = {"map": Measured(9.0, 128.0), "processes": Measured(7.0, 18.0, 4)}
      >>> print(reason("processes", 8, 1000, found))
      8 cells: processes, 79 s: 4 x 18 ms a round, 7 s to start; map 137 s: 128 ms, 9 s
    """
    texts = {}
    for name, one in measured.items():
        times = f"{one.waves} x " if one.waves > 1 else ""
        texts[name] = f"{one.seconds(rounds):.0f} s: {times}{one.round_ms:.3g} ms"
    best, start_s = texts.pop(how), measured[how].start_s
    others = "".join(
        f"; {name} {text}, {measured[name].start_s:.0f} s"
        for name, text in texts.items()
    )
    return f"{cells} cells: {how}, {best} a round, {start_s:.0f} s to start" + others


def _time_processes(
    config: RunConfig, count: int, rounds: int, workers: int
) -> Measured:
    """Times as many cells at the same time as there are processes, one in each."""
    workers = min(workers, count)
    given = json.dumps({"settings": config.flat(), "rounds": rounds})
    begin = time.perf_counter()
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "fedpeft_jax.grids.timing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            # Control-C in a terminal reaches the grid alone.
            start_new_session=True,
        )
        for _ in range(workers)
    ]
    try:
        with ThreadPoolExecutor(workers) as pool:
            found = list(pool.map(lambda process: process.communicate(given), started))
    finally:
        for process in started:
            process.kill()  # nothing, if it has ended
    wall = time.perf_counter() - begin
    for process, (_, error) in zip(started, found, strict=True):
        if process.returncode:
            last = (error.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"the trial of a process failed: {last}")
    round_ms = max(json.loads(out.splitlines()[-1])["round_ms"] for out, _ in found)
    start_s = wall - REPEATS * rounds * round_ms / 1000
    return Measured(max(start_s, 0.0), round_ms, math.ceil(count / workers))
