"""Predicts the peak memory of a process that runs cells of a grid.

A process needs the libraries, the data, what compiling leaves behind, and the arrays of
its cells. The first is measured in a fresh process. The arrays follow from shapes
(`experiment/memory.py`). What loading and compiling need was measured on MovieLens-1M
on a CPU; with much smaller data it is less, and the prediction is too high.
"""

import functools
import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Sequence

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import Split, load, make_split
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.machine import device_memory, host_memory, num_cores
from fedpeft_jax.experiment.memory import predict
from fedpeft_jax.experiment.reporting import format_bytes

_MIB = 2**20

# What the resident memory of a run grew by: per interaction that was read, for the
# pretraining and its programs, for the rounds of a phase, and for the evaluation.
_INTERACTION = 90
_PRETRAINING, _ROUNDS, _EVALUATION = 150 * _MIB, 70 * _MIB, 60 * _MIB
# About half of the 0.35 GB that the compiler needs where no program is in its cache.
_COMPILER = 200 * _MIB
# About what a further cell adds beside its arrays when all cores are busy: eight cells
# needed 1.35 to 1.8 GB on two cores.
_CELL = 40 * _MIB

_SHARED = ("the training items", "the candidates", "of a block in evaluation")
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_FRESH = """
import jax, fedpeft_jax
jax.numpy.zeros(3).block_until_ready()
lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(1024 * int(lines["VmHWM"].split()[0]))
"""


def predict_peak(config: RunConfig, split: Split, cells_in_process: int = 1) -> int:
    """Returns the bytes that a process needs at its peak.

    Args:
      config: the configuration of one cell; the others differ in no shape.
      split: the clients' training and held-out items.
      cells_in_process: cells that are in the process at the same time.
    """
    phases = 1 + (0 < config.run.warm_up_rounds < config.run.rounds)
    work = _PRETRAINING * config.uses_text + _ROUNDS * phases + _EVALUATION
    active = min(cells_in_process, num_cores())  # the others wait for a core
    shared = baseline() + _COMPILER + _INTERACTION * len(split.train.values)
    own = 0
    for part in predict(config, split):
        if part.name.endswith(_SHARED):
            shared += part.size
        else:
            own += part.size
    # The state before the rounds, the stacked one, and the one after.
    own = 3 * own * cells_in_process
    return shared + own + work * active + _CELL * (cells_in_process - active)


def most_cells(config: RunConfig, split: Split, bound: int, cells: int) -> int:
    """Returns the most cells that one process may run at the same time.

    Args:
      config: the configuration of one cell.
      split: the clients' training and held-out items.
      bound: bytes for the process.
      cells: the number of cells that there are.

    Raises:
      InputError: if not even one cell fits.
    """
    one = predict_peak(config, split)
    _check_bound(one, bound)
    fitting = [n for n in range(2, cells + 1) if predict_peak(config, split, n) > bound]
    return (fitting[0] - 1) if fitting else max(cells, 1)


def most_processes(config: RunConfig, split: Split, bound: int, cores: int) -> int:
    """Returns the most processes with one cell each, at most one per core.

    The process of the grid needs memory beside them.

    Args:
      config: the configuration of one cell.
      split: the clients' training and held-out items.
      bound: bytes for all processes together.
      cores: the number of cores.

    Raises:
      InputError: if not even one process fits.
    """
    one = predict_peak(config, split)
    _check_bound(one, bound)
    return max(min(cores, (bound - baseline()) // one), 1)


def limit_cells(
    configs: Sequence[RunConfig], memory: str, workers: int, at_once: int
) -> tuple[int, int, str]:
    """Returns how many processes, and cells of one process, fit into some memory.

    All cells are taken to be as large as the largest of them.

    Args:
      configs: one configuration of each program of the grid.
      memory: the bytes, as `--grid_memory` states them.
      workers: the most processes.
      at_once: the most cells of one process at the same time.

    Returns:
      Both numbers, and what was predicted, to be added to a line of text.

    Raises:
      InputError: if the data cannot be read, or one cell does not fit.
    """
    bound = memory_bound(memory) or 0
    data_of_cells = {config.data for config in configs}
    splits = {data: make_split(load(data), data)[1] for data in data_of_cells}
    config = max(configs, key=lambda c: predict_peak(c, splits[c.data], at_once))
    split = splits[config.data]
    one = predict_peak(config, split)
    workers = most_processes(config, split, bound, workers)
    at_once = most_cells(config, split, bound, at_once)
    several = predict_peak(config, split, at_once)
    said = f"; predicted memory: {format_bytes(one)} a process with one cell"
    if at_once > 1:
        said += f", {format_bytes(several)} with {at_once}"
    return workers, at_once, said


def memory_bound(text: str | None) -> int | None:
    """Returns the bytes that the flag `--grid_memory` states.

    Args:
      text: a number of bytes, or a number with KB, MB, GB or TB; None for the memory of
        the machine, or of its accelerator.

    Returns:
      Bytes; None if nothing is given and the memory of the machine is unknown.

    Raises:
      InputError: for a text that is no size.

    Example:
      >>> memory_bound("1.5GB"), memory_bound("2000000000")
      (1500000000, 2000000000)
    """
    if text is None:
        return device_memory() or host_memory()
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]B)?", text.strip().upper())
    size = int(float(found[1]) * _UNITS[found[2] or ""]) if found else 0
    if not size:
        raise InputError(f"`grid_memory={text}` is no size: write bytes, or 4GB")
    return size


@functools.cache
def baseline() -> int:
    """Returns the bytes of a process that has imported the library and started JAX.

    They are measured in a fresh process. Where the system does not say them, they are
    277 MiB, which were measured on Linux.
    """
    if not pathlib.Path("/proc/self/status").exists():
        return 277 * _MIB
    fresh = subprocess.run(
        [sys.executable, "-c", _FRESH],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    return int(fresh.stdout) if fresh.stdout.strip().isdigit() else 277 * _MIB


def _check_bound(needed: int, bound: int) -> None:
    if needed > bound:
        raise InputError(
            f"one cell needs {format_bytes(needed)} of memory, and `grid_memory` is "
            f"{format_bytes(bound)}: raise it"
        )
