"""Callbacks: what follows a run while it goes on, and cannot change or end it.

A progress bar, TensorBoard, a plot in a notebook and the user's own tracking are
callbacks. `Callbacks` passes every call on to several of them.
"""

import contextlib
import copy
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from fedpeft_jax.core.errors import InputError, brief
from fedpeft_jax.experiment.config import RunConfig


class Callback(Protocol):
    """Follows a run (abstract); every method does nothing unless a subclass defines it.

    A run calls `begin`, then `resume` if it continues an earlier one, then the other
    methods as things happen, `end` if it finishes, and `close` in any case. A callback
    that raises is reported once and left out from then on, and the run goes on;
    KeyboardInterrupt ends the run. What a callback receives is its own copy.

    Example:
      >>> class Losses(Callback):
      ...   def validation(self, entry):
      ...     print(entry["round"], entry["loss"])
      >>> Losses().validation({"round": 10, "loss": 0.5})  # as a run calls it
      10 0.5
    """

    # `return`, or a type checker takes the methods of a protocol as abstract.

    def begin(self, config: RunConfig) -> None:
        """Receives the configuration of the run, before anything else."""
        return

    def resume(self, done: int, entries: Sequence[Mapping[str, Any]]) -> None:
        """Receives where a run continues, before its first round.

        Args:
          done: the rounds that have run. Later ones run again, if there were any.
          entries: the entries of `metrics.jsonl` up to that round.
        """
        return

    def note(self, text: str) -> None:
        """Receives a note, one line of text."""
        return

    def progress(self, task: str, done: int, total: int, **values: float) -> None:
        """Receives the progress of a task, and its latest figures by name.

        Args:
          task: 'rounds' for the rounds of the run, or for example 'pretraining'.
          done: how many of the steps are done.
          total: the number of steps.
          **values: for example `loss`.
        """
        return

    def validation(self, entry: Mapping[str, Any]) -> None:
        """Receives an entry of `metrics.jsonl`, after it is written."""
        return

    def end(self, summary: Mapping[str, Any]) -> None:
        """Receives the content of `summary.json`, after it is written."""
        return

    def close(self) -> None:
        """Ends the output, after a run that finished, failed or was stopped."""
        return


_METHODS = tuple(name for name in vars(Callback) if not name.startswith("_"))


class Callbacks(Callback):
    """Passes every call on to some callbacks, in their order.

    Args:
      callbacks: the callbacks, none by default.

    Raises:
      InputError: if they are no list, or one of them lacks a method.

    Example:
      >>> class Broken(Callback):
      ...   def note(self, text):
      ...     raise OSError("no space left")
      >>> class Prints(Callback):
      ...   def note(self, text):
      ...     print(text)
      >>> callbacks = Callbacks([Broken(), Prints()])
      >>> callbacks.note("hello")
      the callback Broken failed in `note` and is left out from here on: OSError: no
      space left
      hello
      >>> callbacks.note("again")
      again
    """

    def __init__(self, callbacks: Iterable[Callback] = ()) -> None:
        if not isinstance(callbacks, Iterable):
            name = type(callbacks).__name__
            raise InputError(f"callbacks is a {name}: write callbacks=[{name}(...)]")
        self._all: list[Callback] = []
        self._active: list[Callback] = []
        for one in callbacks:
            self.add(one)

    def add(self, callback: Callback) -> None:
        """Adds a callback after the others."""
        if isinstance(callback, type) or not all(
            callable(getattr(callback, name, None)) for name in _METHODS
        ):
            raise InputError(
                f"callbacks has {brief(callback)}, which is no callback: give an "
                "object of a class that is derived from `fedpeft_jax.Callback`"
            )
        self._all.append(callback)
        self._active.append(callback)

    def begin(self, config: RunConfig) -> None:
        self._call("begin", config)

    def resume(self, done: int, entries: Sequence[Mapping[str, Any]]) -> None:
        self._call("resume", done, entries)

    def note(self, text: str) -> None:
        self._call("note", text)

    def progress(self, task: str, done: int, total: int, **values: float) -> None:
        self._call("progress", task, done, total, **values)

    def validation(self, entry: Mapping[str, Any]) -> None:
        self._call("validation", entry)

    def end(self, summary: Mapping[str, Any]) -> None:
        self._call("end", summary)

    def close(self) -> None:
        """Closes all callbacks, those that failed included."""
        self._call("close")
        for one in self._all:
            if one not in self._active:
                with contextlib.suppress(Exception):
                    one.close()

    def _call(self, method: str, *arguments: Any, **values: float) -> None:
        """Calls a method of every callback, and leaves out those that raise."""
        for one in list(self._active):
            try:
                getattr(one, method)(*copy.deepcopy(arguments), **values)
            except Exception as error:
                self._active = [other for other in self._active if other is not one]
                self._report(
                    f"the callback {type(one).__name__} failed in `{method}` and is "
                    f"left out from here on: {type(error).__name__}: {error}"
                )

    def _report(self, text: str) -> None:
        """Writes a note, on standard error if no callback reads notes."""
        if all(type(one).note is Callback.note for one in self._active):
            print(text, file=sys.stderr)
        self.note(text)
