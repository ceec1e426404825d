"""Writes the figures of a run to event files, which TensorBoard reads meanwhile."""

import importlib.util
import json
import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.callbacks import Callback
from fedpeft_jax.experiment.config import RunConfig

_FLUSH_SECONDS = 2


class TensorBoardCallback(Callback):
    """Writes loss, validation metrics, bytes, epsilon and figures, by round.

    `tensorboard --logdir=FOLDER` shows them while the run goes on. A run that continues
    replaces the rounds that run again: TensorBoard leaves out what was written of them.

    Args:
      folder: where the event files are written, for example `RUN/tensorboard`.

    Raises:
      InputError: if tensorboardX is not installed.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        if importlib.util.find_spec("tensorboardX") is None:
            raise InputError(
                "`tensorboard=True` needs tensorboardX: run "
                "pip install -e '.[tensorboard]', or leave it out"
            )
        self._folder = pathlib.Path(folder)
        self._writer: Any = None
        self._config = "{}"

    def begin(self, config: RunConfig) -> None:
        """Keeps the configuration, which is written with the first round."""
        self._config = json.dumps(config.flat(), indent=2)

    def resume(self, done: int, entries: Sequence[Mapping[str, Any]]) -> None:
        """Discards what was written of later rounds; adds earlier ones if none were."""
        new = not any(self._folder.glob("events.*"))
        self._open(done + 1)
        for entry in entries if new else ():
            if entry["loss"] is not None:
                self._write({"train/loss": entry["loss"]}, entry["round"])
            self.validation(entry)

    def progress(self, task: str, done: int, total: int, **values: float) -> None:
        """Writes the loss of the last round, and the rounds per second."""
        if task == "rounds":
            names = {"loss": "train/loss", "rounds/s": "time/rounds_per_second"}
            found = {names[name]: values[name] for name in names if name in values}
            self._write(found, done)

    def validation(self, entry: Mapping[str, Any]) -> None:
        """Writes the figures of an entry of `metrics.jsonl`."""
        self._write(dict(scalars(entry)), entry["round"])

    def end(self, summary: Mapping[str, Any]) -> None:
        """Writes the test metrics, unless the run had finished before."""
        if self._writer is not None:
            test = {"test": summary["metrics"]["test"]}
            self._write(dict(_metrics(test)), summary["rounds"]["evaluated"])

    def close(self) -> None:
        """Writes what is left."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self, first: int) -> None:
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(
            str(self._folder),
            purge_step=first,
            flush_secs=_FLUSH_SECONDS,
            # Files are read in the order of their names.
            filename_suffix=f".{time.time_ns()}",
        )
        self._writer.add_text("config", f"```json\n{self._config}\n```", first - 1)

    def _write(self, values: Mapping[str, float], round_: int) -> None:
        if self._writer is None:
            self._open(1)
        for name, value in values.items():
            self._writer.add_scalar(name, value, round_)


def scalars(entry: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yields the figures of an entry of `metrics.jsonl` by name, without the loss.

    Args:
      entry: an entry with `metrics`, `bytes`, and maybe `privacy` and `figures`.

    Example:
      >>> metrics = {"valid": {"sampled": {"ndcg@10": 0.5}}}
      >>> list(scalars({"metrics": metrics, "bytes": 8}))
      [('valid/sampled/ndcg_at_10', 0.5), ('bytes/total', 8)]
    """
    yield from _metrics(entry["metrics"])
    yield "bytes/total", entry["bytes"]
    epsilon = entry.get("privacy", {}).get("epsilon")
    if epsilon is not None:
        yield "privacy/epsilon", epsilon
    for name, value in entry.get("figures", {}).items():
        yield f"figures/{name}", value


def _metrics(by_target: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for target, rankings in by_target.items():
        for ranking, metrics in rankings.items():
            for name, value in metrics.items():
                # TensorBoard's names have no @.
                yield f"{target}/{ranking}/{name.replace('@', '_at_')}", value
