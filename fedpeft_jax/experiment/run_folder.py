"""The folder of a run: its configuration, its metrics, its model and its summary.

`config.json` is written first. `metrics.jsonl` has one line per evaluation, written
during the run. `checkpoints/` and `per_user.parquet` follow. `summary.json` is written
last and atomically, so that it exists if and only if the run finished.
"""

import contextlib
import itertools
import json
import os
import pathlib
from typing import Any

import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.experiment.checkpoint import save_variables

_OURS = (
    *("config.json", "metrics.jsonl", "per_user.parquet", "summary.json"),
    "checkpoints",
)


class RunFolder:
    """Writes the results of one run to a folder.

    Args:
      path: a folder that holds no run; None makes `runs/NAME-N` with the first free N.
      name: NAME, which is used if `path` is None.

    Raises:
      InputError: if the folder holds a run, or cannot be written.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as path:
      ...   folder = RunFolder(path, "toy")
      ...   folder.write_config({"seed": 0})
      ...   (folder.path / "config.json").read_text()
      '{\\n  "seed": 0\\n}\\n'
    """

    def __init__(self, path: str | os.PathLike[str] | None, name: str) -> None:
        self.path = pathlib.Path(path) if path else _make_free_folder(name)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        held = [entry for entry in _OURS if (self.path / entry).exists()]
        if held:
            raise self._taken(held)

    def _taken(self, held: list[str]) -> InputError:
        return InputError(
            f"{self.path} already holds another run ({', '.join(held)}): "
            "set `out` to a new folder"
        )

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes `config.json`; raises InputError if another run wrote it first."""
        try:
            with (self.path / "config.json").open("x") as file:
                file.write(json.dumps(config, indent=2) + "\n")
        except FileExistsError:
            raise self._taken(["config.json"]) from None
        except OSError as error:
            raise _unwritable(self.path / "config.json", error) from error

    def append_metrics(self, entry: dict[str, Any]) -> None:
        """Appends a line to `metrics.jsonl` and closes the file."""
        path = self.path / "metrics.jsonl"
        try:
            with path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise _unwritable(path, error) from error

    def save_variables(self, name: str, variables: PyTree) -> None:
        """Writes `checkpoints/NAME`."""
        save_variables(self.path / "checkpoints" / name, variables)

    def write_per_user(self, table: pl.DataFrame) -> None:
        """Writes `per_user.parquet`, one row per evaluated user."""
        partial = self.path / ".per_user.parquet.partial"
        try:
            table.write_parquet(partial)
            partial.replace(self.path / "per_user.parquet")
        except OSError as error:
            raise _unwritable(self.path / "per_user.parquet", error) from error

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes `summary.json`, which marks the run as finished."""
        self._write("summary.json", json.dumps(summary, indent=2) + "\n")

    def close(self) -> None:
        """Removes the folder if nothing was written to it."""
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def _write(self, name: str, text: str) -> None:
        partial = self.path / f".{name}.partial"
        try:
            with partial.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path / name)
        except OSError as error:
            raise _unwritable(self.path / name, error) from error


def _make_free_folder(name: str) -> pathlib.Path:
    runs, numbers = pathlib.Path("runs"), itertools.count(1)
    try:
        runs.mkdir(exist_ok=True)
        while True:
            path = runs / f"{name}-{next(numbers)}"
            with contextlib.suppress(FileExistsError):
                path.mkdir()
                return path
    except OSError as error:
        raise _unwritable(runs, error) from error


def _unwritable(path: pathlib.Path, error: OSError) -> InputError:
    return InputError(
        f"cannot write {path}: {error.strerror or error}; free some space or set `out`"
    )
