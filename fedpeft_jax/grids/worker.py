"""A process that runs cells of a grid: `python -m fedpeft_jax.grids.worker`.

It reads one JSON object per line from standard input, `{"folder": ..., "settings":
{...}, "shared": ...}`, and runs that cell. To standard output it writes `{"rounds": n,
"ndcg": x}` as the cell goes on, and `{"status": ..., "error": ...}` at its end. If
standard input is closed, because the grid ended or was killed, the process ends at
once; the cell then continues from its last checkpoint.
"""

import contextlib
import json
import os
import pathlib
import queue
import sys
import threading
from typing import Any

from absl import logging

from fedpeft_jax.core.compilation_cache import use_compilation_cache
from fedpeft_jax.core.errors import StoppedError
from fedpeft_jax.experiment import configure
from fedpeft_jax.experiment.stopping import Stop, stop_on_signals
from fedpeft_jax.grids.execution import run_cell


def main() -> int:
    """Runs cells until standard input is closed or a signal stops the process."""
    # What a library prints must not reach the reader of the results.
    results = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    use_compilation_cache()
    logging.set_verbosity(logging.WARNING)
    orders: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            orders.put(line)
        os._exit(1)

    def write(**values: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # the reader above ends all
            results.write(json.dumps(values) + "\n")

    threading.Thread(target=read, daemon=True).start()
    with stop_on_signals(kill=True) as stop:
        while (received := stop()) is None:
            try:
                order = orders.get(timeout=0.1)
            except queue.Empty:
                continue
            _run(json.loads(order), write, stop)
    return 128 + received


def _run(order: dict[str, Any], write: Any, stop: Stop) -> None:
    reset_peak_memory()
    shared = order["shared"]
    try:
        outcome = run_cell(
            configure(**order["settings"]),
            pathlib.Path(order["folder"]),
            lambda done, ndcg: write(rounds=done, ndcg=ndcg),
            stop,
            None if shared is None else pathlib.Path(shared),
        )
    except StoppedError as error:
        write(status="stopped", error=str(error))
        return
    write(**outcome._asdict())


def reset_peak_memory() -> None:
    """Lets the peak memory of the process start anew, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    sys.exit(main())
