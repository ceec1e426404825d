"""A small run in a process of its own: `python -m tests.experiment.killed_run`.

Its arguments are the folder and settings as JSON, which change those of
`tests.small_runs.SETTINGS`. The compiled
programs are kept in the folder that JAX_COMPILATION_CACHE_DIR names.
"""

import json
import os
import resource
import sys

import jax

from fedpeft_jax.experiment import ConsoleReporter, cli, configure, run
from fedpeft_jax.experiment.stopping import stop_on_signals
from tests.small_runs import SETTINGS, small_runs


def main():
    out, settings = sys.argv[1], json.loads(sys.argv[2])
    if limit := settings.pop("file_size_limit", None):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    config = configure(**{**SETTINGS, **settings, "out": out})

    def work():
        with stop_on_signals(kill=True) as stop:
            run(config, callbacks=[ConsoleReporter()], stop=stop)

    with small_runs():
        cache = os.environ.get("JAX_COMPILATION_CACHE_DIR")
        jax.config.update("jax_compilation_cache_dir", cache)
        return cli.exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
