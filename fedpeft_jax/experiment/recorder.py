"""Records a run: its time, the lines of `metrics.jsonl`, its checkpoints, its progress.

Nothing in this file influences training. The summary reads the best validation from
`history`.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fedpeft_jax.core.errors import StoppedError
from fedpeft_jax.experiment.callbacks import Callbacks
from fedpeft_jax.experiment.checkpoints import Checkpoints
from fedpeft_jax.experiment.run_folder import RunFolder
from fedpeft_jax.experiment.state import RunState
from fedpeft_jax.experiment.stopping import Stop, never_stop

_STAGES = ("load_s", "pretrain_s", "compile_s", "rounds_s", "evaluate_s")


class Recorder:
    """The clock, the callbacks, the folder and the checkpoints of a run.

    Args:
      folder: where results are written; None keeps them in memory.
      callbacks: follow the run.
      keep: how many of the last checkpoints are kept.
      stop: returns the signal that asks the run to stop, if there is one.

    Attributes:
      folder: the given folder.
      checkpoints: the checkpoints in the folder; None without one.
      callbacks: the given callbacks.
      seconds: seconds by stage.
      history: the entries of `metrics.jsonl`.
      pending: figures of the rounds of this phase since the last entry, by name.
      fingerprint: the fingerprint of the data, which every checkpoint holds.
    """

    def __init__(
        self,
        folder: RunFolder | None,
        callbacks: Callbacks,
        keep: int = 1,
        stop: Stop = never_stop,
    ) -> None:
        self.folder = folder
        self._stop = stop
        self.checkpoints: Checkpoints | None = None
        if folder is not None:
            self.checkpoints = Checkpoints(folder.path / "checkpoints", keep)
        self.callbacks = callbacks
        self.seconds = dict.fromkeys(_STAGES, 0.0)
        self.history: list[dict[str, Any]] = []
        self.pending: dict[str, list[float]] = {}
        self.fingerprint = ""

    @contextlib.contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Adds the seconds of a `with` block to those of a stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - begin

    def validation(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        """Adds the entry of a validation to the history and to `metrics.jsonl`.

        Returns:
          The entry with the means of the pending figures, and with seconds.
        """
        entry = dict(entry)
        if self.pending:
            means = {name: float(np.mean(v)) for name, v in self.pending.items()}
            entry["figures"], self.pending = means, {}
        entry["seconds"] = round(sum(self.seconds.values()), 3)
        self.history.append(entry)
        if self.folder is not None:
            self.folder.append_metrics(entry)
        self.callbacks.validation(entry)
        return entry

    def progress(self, done: int, total: int, **values: float) -> None:
        """Reports how many rounds are done, with their latest figures."""
        rate = done / max(self.seconds["rounds_s"], 1e-9)
        self.callbacks.progress("rounds", done, total, **values, **{"rounds/s": rate})

    def checkpoint(self, state: RunState, *, wait: bool = False) -> None:
        """Begins to write a checkpoint, if there is a folder.

        Args:
          state: the state of the run.
          wait: whether to return after it is written.

        Raises:
          InputError: if this checkpoint (with `wait`) or the one before could not be
            written.
        """
        if self.folder is None or self.checkpoints is None:
            return
        facts = {
            "round": state.round,
            "phase": int(state.phase),
            "metrics": self.folder.metrics_length(),
            "seconds": self.seconds,
            "pending": self.pending,
            "fingerprint": self.fingerprint,
        }
        self.checkpoints.save(state, facts)
        if wait:
            self.checkpoints.wait()

    def check_stop(self, state: RunState) -> None:
        """Saves the state and raises StoppedError if a signal asks the run to stop."""
        signal = self._stop()
        if signal is None:
            return
        self.checkpoint(state, wait=True)
        remedy = "nothing is kept, because the run has no folder"
        if self.folder is not None:
            path = self.folder.path
            remedy = f"everything is saved: the same run with `out={path}` continues it"
        reason = f"{signal.name} stopped the run after round {state.round}"
        raise StoppedError(reason, signal, remedy)

    def restore(self, facts: Mapping[str, Any], history: list[dict[str, Any]]) -> None:
        """Continues from the facts of a checkpoint.

        Args:
          facts: the facts that `checkpoint` saved.
          history: the entries of `metrics.jsonl` before the checkpoint.
        """
        for stage in _STAGES:
            self.seconds[stage] += float(facts["seconds"][stage])
        self.pending = {name: list(v) for name, v in facts["pending"].items()}
        self.history = history

    def close(self) -> None:
        """Ends the thread that writes checkpoints, after the last one is written."""
        if self.checkpoints is not None:
            self.checkpoints.close()
