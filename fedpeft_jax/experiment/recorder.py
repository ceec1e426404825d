"""Records a run: its time, the lines of `metrics.jsonl`, and its progress.

Nothing in this file influences training. The summary reads the best validation from
`history`.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from fedpeft_jax.experiment.reporting import Reporter, SilentReporter
from fedpeft_jax.experiment.run_folder import RunFolder

_STAGES = ("load_s", "pretrain_s", "compile_s", "rounds_s", "evaluate_s")


class Recorder:
    """The clock, the reporter and the folder of a run.

    Args:
      folder: where results are written; None keeps them in memory.
      reporter: receives notes and progress; None for no output.

    Attributes:
      folder: the given folder.
      reporter: the given reporter, or one that ignores everything.
      seconds: seconds by stage.
      history: the entries of `metrics.jsonl`.
    """

    def __init__(self, folder: RunFolder | None, reporter: Reporter | None) -> None:
        self.folder = folder
        self.reporter = reporter or SilentReporter()
        self.seconds = dict.fromkeys(_STAGES, 0.0)
        self.history: list[dict[str, Any]] = []

    @contextlib.contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Adds the seconds of a `with` block to those of a stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - begin

    def validation(self, entry: Mapping[str, Any]) -> None:
        """Adds the entry of a validation to the history and to `metrics.jsonl`."""
        seconds = round(sum(self.seconds.values()), 3)
        self.history.append({**entry, "seconds": seconds})
        if self.folder is not None:
            self.folder.append_metrics(self.history[-1])

    def progress(self, done: int, total: int, **values: float) -> None:
        """Reports how many rounds are done, with their latest figures."""
        rate = done / max(self.seconds["rounds_s"], 1e-9)
        self.reporter.progress("rounds", done, total, **values, **{"rounds/s": rate})
