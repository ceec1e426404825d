"""Runs the cells of a grid in several processes side by side.

The rounds of a run use little more than one core of a CPU, so that other runs can use
the other cores. Every process is set up like a single run, with threads for all usable
cores: XLA divides a matrix product by the number of threads, so that another number
would change the last digits of a result. The system divides the cores among the
processes.
"""

import collections
import contextlib
import itertools
import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.grids.cells import Cell
from fedpeft_jax.grids.execution import Context, Outcome, stopped_by
from fedpeft_jax.grids.pretraining import pretraining_group
from fedpeft_jax.grids.program_key import program_key

WORKER = (sys.executable, "-m", "fedpeft_jax.grids.worker")
"""The command of a worker."""

_TRIES = 2  # of a cell whose process ends by itself, for example without memory


class _Event(NamedTuple):
    """A line that a worker wrote; None after its last one."""

    worker: "_Worker"
    values: dict[str, Any] | None


class _Worker:
    """A process and the cell that it runs."""

    def __init__(self, log: pathlib.Path, events: "queue.SimpleQueue[_Event]") -> None:
        environment = dict(os.environ)
        cache = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
        if cache is not None:
            environment["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        self.cell: Cell | None = None
        self.started = False  # whether the cell has run a round
        self._log = log
        with log.open("w") as errors:
            self.process = subprocess.Popen(
                WORKER,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=environment,
                # Control-C in a terminal reaches the grid alone, which passes it on.
                start_new_session=True,
            )
        threading.Thread(target=self._read, args=(events,), daemon=True).start()

    def _read(self, events: "queue.SimpleQueue[_Event]") -> None:
        assert self.process.stdout is not None
        try:
            for line in self.process.stdout:
                events.put(_Event(self, json.loads(line)))
        except ValueError:  # the process died within a line
            pass
        finally:
            self.process.stdout.close()
            events.put(_Event(self, None))

    def run(self, cell: Cell, context: Context) -> None:
        """Starts a cell."""
        self.cell, self.started = cell, False
        shared = context.shared(cell.config)
        order = {
            "folder": str(context.folder / cell.name),
            "settings": cell.config.flat(),
            "shared": None if shared is None else str(shared),
        }
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its last event says that it ended
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()

    def stop(self) -> None:
        """Lets the process save its state and end."""
        # Before its first round a cell has nothing to save, and would only answer
        # after it has compiled its program.
        self.process.send_signal(signal.SIGTERM if self.started else signal.SIGKILL)

    def end(self) -> None:
        """Ends the process, which runs nothing that is needed."""
        assert self.process.stdin is not None
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def last_words(self) -> str:
        """Returns why the process ended by itself."""
        code = self.process.wait()
        if code == -signal.SIGKILL:
            return "its process was killed, as the system does without free memory"
        number = -code if code < 0 else code - 128  # a worker returns the latter
        if number in set(signal.Signals):
            return f"its process was ended by {signal.Signals(number).name}"
        lines = self._log.read_text(errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"its process ended with code {code}: {said[:300]}"


def processes(cells: Sequence[Cell], context: Context) -> None:
    """Runs the cells in processes, each of which runs one cell after the other.

    Args:
      cells: the cells.
      context: the folder, the watcher, the signal to stop, and the most processes.

    Raises:
      InputError: if no process can be started.
      StoppedError: if a signal asked the grid to stop; its state is saved.
    """
    logs = context.folder / ".logs"
    events: queue.SimpleQueue[_Event] = queue.SimpleQueue()
    waiting = list(cells)
    tries: collections.Counter[str] = collections.Counter()
    workers: list[_Worker] = []
    numbers = itertools.count()
    stopping: signal.Signals | None = None
    try:
        while waiting or any(worker.cell for worker in workers):
            if stopping is None and (stopping := context.stop()) is not None:
                for worker in workers:
                    worker.stop()
            if stopping is not None and not any(worker.cell for worker in workers):
                break
            if stopping is None:
                try:
                    _deal(waiting, workers, context, logs, numbers, events)
                except OSError as error:
                    raise InputError(
                        f"a process cannot be started: {error}; the same command "
                        "continues the grid, with --executor=one in this process"
                    ) from error
            try:
                worker, values = events.get(timeout=0.1)
            except queue.Empty:
                continue
            cell = worker.cell
            if values is None:
                workers.remove(worker)
                if cell is None or stopping is not None:
                    worker.end()
                    continue
                tries[cell.name] += 1
                if tries[cell.name] < _TRIES:
                    context.watcher.note(f"{cell.name}: {worker.last_words()}; again")
                    waiting.insert(0, cell)
                else:
                    words = f"{worker.last_words()}, {_TRIES} times"
                    context.watcher.end(cell, Outcome("failed", words))
                worker.end()
            elif cell is None:
                continue
            elif "rounds" in values:
                worker.started = True
                context.watcher.rounds(cell, values["rounds"], values["ndcg"])
            elif values["status"] != "stopped":
                worker.cell = None
                context.watcher.end(cell, Outcome(**values))
            elif stopping is not None:
                worker.cell = None
            # Else somebody stopped this process alone: its end is the next event.
        if stopping is not None:
            raise stopped_by(stopping)
    finally:
        for worker in workers:
            worker.end()


def _deal(
    waiting: list[Cell],
    workers: list[_Worker],
    context: Context,
    logs: pathlib.Path,
    numbers: "itertools.count[int]",
    events: "queue.SimpleQueue[_Event]",
) -> None:
    """Gives cells to workers that are free, and starts workers that are missing."""
    while waiting and sum(w.cell is not None for w in workers) < context.workers:
        preparing = [w.cell for w in workers if w.cell is not None and not w.started]
        index = choose_next(waiting, preparing)
        if index is None:
            return
        free = next((worker for worker in workers if worker.cell is None), None)
        if free is None:
            logs.mkdir(exist_ok=True)
            free = _Worker(logs / f"worker-{next(numbers)}.txt", events)
            workers.append(free)
        cell = waiting.pop(index)
        context.watcher.begin(cell)
        free.run(cell, context)


def choose_next(waiting: Sequence[Cell], preparing: Sequence[Cell]) -> int | None:
    """Returns the index of the cell that a free worker runs.

    Pretraining uses all cores, and its result is shared, so no cell starts while
    another one makes the pretraining that both need. Among the others, one whose
    program another worker is not compiling comes first.

    Args:
      waiting: the cells that have not started, at least one.
      preparing: the cells that run and have no round yet.

    Returns:
      The index; None if all cells wait for a pretraining.
    """
    made = {pretraining_group(cell.config) for cell in preparing} - {None}
    compiled = {program_key(cell.config) for cell in preparing}
    ready = [
        index
        for index, cell in enumerate(waiting)
        if pretraining_group(cell.config) not in made
    ]
    others = (i for i in ready if program_key(waiting[i].config) not in compiled)
    return next(others, ready[0] if ready else None)
