"""A worker of small runs: `python -m tests.grids.small_worker`."""

import sys

import jax

from fedpeft_jax.grids import worker
from tests.small_runs import small_runs

if __name__ == "__main__":
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    with small_runs():
        sys.exit(worker.main())
