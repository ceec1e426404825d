"""The folder of a run: its configuration, its metrics, its model and its summary.

`config.json` is written first. `metrics.jsonl` has one line per evaluation, written
during the run. `items.parquet`, `users.parquet` and `histories.parquet` are written
before the first round. `checkpoints/` and `per_user.parquet` follow. `summary.json` is
written last and atomically, so that it exists if and only if the run finished.
"""

import contextlib
import hashlib
import io
import itertools
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import polars as pl

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.manifest import digest_of
from fedpeft_jax.core.typing import PyTree
from fedpeft_jax.experiment.checkpoint import save_variables
from fedpeft_jax.experiment.folder_lock import FolderLock

TABLES = ("items", "users", "histories")
"""The tables with the original ids, each in a file NAME.parquet."""

TABLES_MANIFEST = "tables.json"
"""The file with the size, the SHA-256 and the number of rows of each table."""

_OURS = (
    *("config.json", "metrics.jsonl", "per_user.parquet", "summary.json"),
    *("checkpoints", TABLES_MANIFEST, *(f"{name}.parquet" for name in TABLES)),
)

_REMEDIES = {
    "config.json": "set `out` to a new folder",
    # The run then continues from its last checkpoint, and writes it again.
    "summary.json": "delete it and run the same command again",
}


class RunFolder:
    """Writes the results of one run to a folder, which it locks.

    Args:
      path: a folder; None makes `runs/NAME-N` with the first free N.
      name: NAME, which is used if `path` is None.
      resume: `'auto'` continues the run in the folder if there is one, `'never'`
        refuses such a folder, and `'must'` refuses a folder without a run.

    Raises:
      InputError: if the folder is refused, cannot be written, or is in use.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as path:
      ...   folder = RunFolder(path, "toy")
      ...   folder.write_config({"seed": 0})
      ...   folder.close()
      ...   RunFolder(path, "toy").held_config()
      {'seed': 0}
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, name: str, resume: str = "auto"
    ) -> None:
        if resume == "must" and (path is None or not pathlib.Path(path).is_dir()):
            where = "no folder is given" if path is None else f"{path} does not exist"
            raise InputError(
                f"`resume=must`, but {where}: set `out` to the folder of a run"
            )
        self.path = pathlib.Path(path) if path else _make_free_folder(name)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(self.path)
            held = [entry for entry in _OURS if (self.path / entry).exists()]
        except OSError as error:
            raise _unwritable(self.path, error) from error
        if held and (resume == "never" or "config.json" not in held):
            self.close()
            raise InputError(
                f"{self.path} already holds another run ({', '.join(held)}): "
                "set `out` to a new folder"
            )
        if not held and resume == "must":
            self.close()
            raise InputError(
                f"`resume=must`, but {self.path} holds no run: set `out` to the folder "
                "of a run, or `resume=auto`"
            )

    @property
    def pretrained(self) -> pathlib.Path:
        """The folder that keeps what the run learned from item text."""
        return self.path / "checkpoints" / "pretrained"

    def held_config(self) -> dict[str, Any] | None:
        """Returns the settings of the run in the folder, None if there is none."""
        return self._read_json("config.json")

    def held_summary(self) -> dict[str, Any] | None:
        """Returns the summary of the run in the folder, None if it has not finished."""
        return self._read_json("summary.json")

    def write_config(self, config: dict[str, Any]) -> None:
        """Writes `config.json` atomically."""
        self._write("config.json", json.dumps(config, indent=2) + "\n")

    def has_tables(self) -> bool:
        """Returns whether `write_tables` has written to the folder."""
        return (self.path / TABLES_MANIFEST).is_file()

    def write_tables(self, dataset: str, tables: Mapping[str, pl.DataFrame]) -> None:
        """Writes the tables with the original ids, and then their manifest.

        Args:
          dataset: the name of the data set.
          tables: a frame for each name of `TABLES`.
        """
        files = {}
        for name, table in tables.items():
            size_and_hash = self._write_parquet(f"{name}.parquet", table)
            files[name] = [*size_and_hash, len(table)]
        content = {"dataset": dataset, "files": files}
        content["sha256"] = digest_of(content)
        self._write(TABLES_MANIFEST, json.dumps(content, indent=2) + "\n")

    def append_metrics(self, entry: dict[str, Any]) -> None:
        """Appends a line to `metrics.jsonl` and closes the file."""
        path = self.path / "metrics.jsonl"
        try:
            with path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            raise _unwritable(path, error) from error

    def metrics_length(self) -> tuple[int, str]:
        """Returns the length of `metrics.jsonl` in bytes, and its SHA-256."""
        path = self.path / "metrics.jsonl"
        content = path.read_bytes() if path.exists() else b""
        return len(content), hashlib.sha256(content).hexdigest()

    def read_metrics(self, length: int, digest: str) -> list[dict[str, Any]]:
        """Returns the entries in the first bytes of `metrics.jsonl`.

        Args:
          length: the number of bytes.
          digest: their SHA-256.

        Raises:
          InputError: if the bytes are not these.
        """
        path = self.path / "metrics.jsonl"
        try:
            content = path.read_bytes()[:length] if path.exists() else b""
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error}") from error
        if len(content) < length or hashlib.sha256(content).hexdigest() != digest:
            raise InputError(f"{path} is not as the checkpoint left it")
        return [json.loads(line) for line in content.splitlines()]

    def cut_metrics(self, length: int) -> None:
        """Removes what follows the first bytes of `metrics.jsonl`."""
        path = self.path / "metrics.jsonl"
        try:
            if path.exists():
                os.truncate(path, length)
        except OSError as error:
            raise _unwritable(path, error) from error

    def set_aside(self, label: str) -> None:
        """Renames the results of a finished run that goes on, so that they are kept."""
        try:
            for name in ("summary.json", "per_user.parquet"):
                path = self.path / name
                if path.exists():
                    path.rename(path.with_stem(f"{path.stem}-{label}"))
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def save_variables(self, name: str, variables: PyTree) -> None:
        """Writes `checkpoints/NAME`."""
        save_variables(self.path / "checkpoints" / name, variables)

    def write_per_user(self, table: pl.DataFrame) -> None:
        """Writes `per_user.parquet`, one row per evaluated user."""
        self._write_parquet("per_user.parquet", table)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes `summary.json`, which marks the run as finished."""
        self._write("summary.json", json.dumps(summary, indent=2) + "\n")

    def close(self) -> None:
        """Removes the folder if nothing was written to it, and releases the lock."""
        with contextlib.suppress(OSError):
            self.path.rmdir()
        self._lock.release()

    def _read_json(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        try:
            found = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path} cannot be read ({error}): {_REMEDIES[name]}"
            ) from error
        if not isinstance(found, dict):
            raise InputError(f"{path} is damaged: {_REMEDIES[name]}")
        return found

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

    def _write_parquet(self, name: str, table: pl.DataFrame) -> tuple[int, str]:
        """Writes a table atomically, and returns its size in bytes and its SHA-256."""
        partial = self.path / f".{name}.partial"
        try:
            # Polars hides the reason why it cannot write to a file.
            content = io.BytesIO()
            table.write_parquet(content)
            with partial.open("wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path / name)
            size = content.getbuffer().nbytes
            return size, hashlib.sha256(content.getbuffer()).hexdigest()
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
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


def _unwritable(path: pathlib.Path, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    shown = str(path) if len(str(path)) < 300 else f"{str(path)[:300]}..."
    return InputError(f"cannot write {shown}: {reason}; free some space or set `out`")
