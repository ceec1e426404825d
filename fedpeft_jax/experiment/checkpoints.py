"""The checkpoints of a run: the last ones and the best one, written beside training.

A checkpoint is the whole `RunState`, with facts about the run. A thread writes it while
the next rounds run. It is complete or absent, and a damaged one is passed over.
"""

import contextlib
import copy
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.checkpoint import Saved, load_tree, save_tree
from fedpeft_jax.experiment.snapshot import pack
from fedpeft_jax.experiment.state import RunState

_NAME = re.compile(r"round-(\d{6,})")


class Checkpoints:
    """Writes and reads the checkpoints in a folder.

    Args:
      path: the folder, which need not exist.
      keep: how many of the last checkpoints are kept, at least 1. The checkpoint of the
        best validation is kept, too.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   list(Checkpoints(pathlib.Path(folder), keep=2).newest(print))
      []
    """

    def __init__(self, path: pathlib.Path, keep: int) -> None:
        self._path, self._keep = path, keep
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future[None] | None = None

    def save(self, state: RunState, facts: Mapping[str, Any]) -> None:
        """Copies a state and begins to write it; waits for the checkpoint before.

        Args:
          state: the state of the run.
          facts: JSON values that are saved with the state.

        Raises:
          InputError: if the checkpoint before could not be written.
        """
        self.wait()
        packed, round_, best = pack(state), state.round, int(state.best.round)
        facts = copy.deepcopy(dict(facts))

        def write() -> None:
            save_tree(self._path / _name(round_), packed, facts)
            self._remove_old(best)

        self._writing = self._thread.submit(write)

    def wait(self) -> None:
        """Waits until the last checkpoint is written.

        Raises:
          InputError: if it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Ends the thread, after the checkpoint that it is writing."""
        with contextlib.suppress(InputError):
            self.wait()
        self._thread.shutdown()

    def newest(self, note: Callable[[str], None]) -> Iterator[Saved]:
        """Yields the checkpoints, the newest first; damaged ones are passed over.

        Args:
          note: receives a sentence about each damaged checkpoint.
        """
        for round_ in sorted(self._rounds(), reverse=True):
            try:
                yield load_tree(self._path / _name(round_))
            except InputError as error:
                note(f"{error}; an older checkpoint is used instead")

    def remove_after(self, round_: int) -> None:
        """Removes the checkpoints of later rounds, and what interrupted writes left."""
        for later in self._rounds():
            if later > round_:
                shutil.rmtree(self._path / _name(later), ignore_errors=True)
        for left in self._path.glob(".round-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _remove_old(self, best: int) -> None:
        for round_ in sorted(self._rounds())[: -self._keep]:
            if round_ != best:
                shutil.rmtree(self._path / _name(round_), ignore_errors=True)

    def _rounds(self) -> list[int]:
        if not self._path.is_dir():
            return []
        names = (_NAME.fullmatch(path.name) for path in self._path.iterdir())
        return [int(name[1]) for name in names if name]


def _name(round_: int) -> str:
    return f"round-{round_:06d}"
