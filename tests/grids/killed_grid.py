"""A small grid in a process of its own: `python -m tests.grids.killed_grid FLAG...`."""

import os
import sys

import jax
import pytest

from fedpeft_jax.grids import processes
from tests.small_runs import run_cli, small_runs

WORKER = (sys.executable, "-m", "tests.grids.small_worker")


def main():
    with small_runs(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "WORKER", WORKER)
        cache = os.environ["JAX_COMPILATION_CACHE_DIR"]
        jax.config.update("jax_compilation_cache_dir", cache)
        return run_cli(*sys.argv[1:], script="grid")


if __name__ == "__main__":
    sys.exit(main())
