"""The ledger of a grid, `grid.json`: its cells, and how far each of them is.

The ledger is written atomically at every change, so that a grid that is killed at any
moment continues cell by cell. Whether a cell has finished is decided by its own folder.
"""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment import FIELDS
from fedpeft_jax.experiment.identity import FREE, differences
from fedpeft_jax.grids.addresses import Settings
from fedpeft_jax.grids.cells import Cell

FILE = "grid.json"
FORMAT = 1

Status = Literal["waiting", "running", "finished", "diverged", "failed"]
"""How far a cell is."""


class Entry(NamedTuple):
    """A cell in the ledger.

    Attributes:
      changes: what differs from the settings of all cells, by address.
      settings: the settings of its configuration that differ from their defaults.
      status: how far it is.
      error: one line, if it has diverged or failed.
    """

    changes: Settings
    settings: Settings
    status: Status = "waiting"
    error: str | None = None


class Ledger:
    """The cells of a grid by name, in a file that is always whole.

    Args:
      folder: the folder of the grid.
      common: the settings of all cells that differ from their defaults.
      entries: the cells by name.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as name:
      ...   ledger = Ledger(pathlib.Path(name), {}, {"seed=0": Entry({"seed": 0}, {})})
      ...   ledger.mark("seed=0", "failed", "no memory")
      ...   read_ledger(pathlib.Path(name)).entries["seed=0"].status
      'failed'
    """

    def __init__(
        self, folder: pathlib.Path, common: Settings, entries: Mapping[str, Entry]
    ) -> None:
        self.folder, self.common, self.entries = folder, common, dict(entries)

    def mark(self, name: str, status: Status, error: str | None = None) -> None:
        """Changes the status of a cell, and writes the ledger."""
        entry = self.entries[name]
        self.entries[name] = entry._replace(status=status, error=error)
        self.write()

    def write(self) -> None:
        """Writes the ledger.

        Raises:
          InputError: if it cannot be written.
        """
        cells = [{"name": k, **entry._asdict()} for k, entry in self.entries.items()]
        content = {"format": FORMAT, "common": self.common, "cells": cells}
        write_atomically(self.folder / FILE, json.dumps(content, indent=1).encode())


def write_atomically(path: pathlib.Path, content: bytes) -> None:
    """Writes a file completely or not at all.

    Raises:
      InputError: if it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror}; free some space or set `out`"
        ) from error


def read_ledger(folder: pathlib.Path) -> Ledger | None:
    """Returns the ledger in a folder; None if there is none.

    Raises:
      InputError: if it cannot be read, or is damaged.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError("it has another format")
        entries = {cell.pop("name"): Entry(**cell) for cell in content["cells"]}
        whole = content["common"].keys() <= FIELDS.keys() and all(
            isinstance(entry.settings, dict)
            and isinstance(entry.changes, dict)
            and entry.status in get_args(Status)
            for entry in entries.values()
        )
        if not whole:
            raise ValueError("a part is missing, or of another version")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): set `out` to the folder of a "
            "grid, or to a new one"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is damaged ({error}): delete it and run the same command again, "
            "which reads the cells that have finished"
        ) from None
    return Ledger(folder, content["common"], entries)


def plan_ledger(
    folder: pathlib.Path,
    common: Mapping[str, Any],
    cells: Sequence[Cell],
    held: Ledger | None,
) -> Ledger:
    """Returns the ledger of a command, without writing it.

    Args:
      folder: the folder of the grid.
      common: the settings of all cells by name.
      cells: the cells of the command.
      held: the ledger in the folder, if there is one. Its other cells are kept.

    Raises:
      InputError: if the common settings are not those of the ledger.
    """
    given = not_default(common)
    entries = dict(held.entries) if held else {}
    if held is not None:
        _check_common(held.common, given, folder)
    for cell in cells:
        settings = not_default(cell.config.flat())
        before = entries.get(cell.name)
        same = before is not None and _free(before.settings) == _free(settings)
        if before is not None and same:
            # A run that diverged would diverge again; all others continue.
            kept = before.status in ("diverged", "finished")
            entry = before if kept else before._replace(status="waiting", error=None)
            entries[cell.name] = entry._replace(settings=settings)
        else:
            entries[cell.name] = Entry(cell.changes, settings)
    return Ledger(folder, given, entries)


def not_default(settings: Mapping[str, Any]) -> Settings:
    """Returns the settings that differ from their defaults.

    Example:
      >>> not_default({"rounds": 30, "seed": 0})
      {'rounds': 30}
    """
    return {k: v for k, v in settings.items() if v != FIELDS[k].default}


def _free(settings: Mapping[str, Any]) -> Settings:
    """Returns the settings on which the result depends."""
    return {k: v for k, v in settings.items() if k not in FREE}


def _check_common(held: Settings, given: Settings, folder: pathlib.Path) -> None:
    defaults = {name: FIELDS[name].default for name in {*held, *given}}
    found = differences({**defaults, **held}, {**defaults, **given}, places=False)
    if found:
        listed = ", ".join(
            f"{name} is {old!r} there and {new!r} here"
            for name, (old, new) in found.items()
        )
        raise InputError(
            f"{folder} holds a grid with other settings: {listed}; use the same ones, "
            "or set `out` to a new folder"
        )
