"""Runs the cells of a grid in one process, which share data and compiled programs.

Every cell is an ordinary run: it has its own folder, recorder, checkpoints, phases and
early stopping. Cells differ in when they evaluate, merge, stop or fail; only their
rounds are run together (`rendezvous.py`).
"""

import queue
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data import Dataset
from fedpeft_jax.experiment.callbacks import Callback
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.driver import RunResult, run
from fedpeft_jax.experiment.run_folder import RunFolder
from fedpeft_jax.experiment.stopping import Stop, never_stop
from fedpeft_jax.grids.rendezvous import Rendezvous
from fedpeft_jax.grids.stacked_rounds import HOWS

Outcome: TypeAlias = RunResult | Exception
"""A finished run, or the error that ended it."""


class Remembered:
    """A `Once` that remembers what it made, for threads of one process.

    Example:
      >>> once = Remembered()
      >>> once("data", lambda: [1]) is once("data", lambda: [1])
      True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[Hashable, Future[Any]] = {}

    def __call__(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """Returns the value of a key; other threads wait for the one that makes it."""
        with self._lock:
            first = key not in self._made
            made = self._made.setdefault(key, Future())
        if first:
            try:
                made.set_result(make())
            except BaseException as error:
                made.set_exception(error)
        return made.result()


def run_together(
    configs: Sequence[RunConfig],
    folders: Sequence[RunFolder | None] | None = None,
    callbacks: Sequence[Sequence[Callback]] | None = None,
    stop: Stop = never_stop,
    how: str = "threads",
    on_end: Callable[[int, Outcome], None] | None = None,
    *,
    dataset: Dataset | None = None,
    once: Remembered | None = None,
) -> list[Outcome]:
    """Runs some configurations together, as if each was run alone.

    With `how='threads'`, the cells run side by side, one per core, and call the same
    compiled rounds. With `map` and `vmap` one call runs the rounds of all cells whose
    programs and shapes are the same. With `vmap` sums are added in another order.

    Args:
      configs: the configuration of each cell. Cells with different keys
        (`program_key`) have programs of their own. If they have `out`, each has
        another folder.
      folders: where each cell writes, and the caller closes them; by default the
        `out` of its configuration, or memory alone.
      callbacks: follow each cell, in its thread.
      stop: returns the signal that asks all cells to stop, if there is one.
      how: `'vmap'`, `'map'` or `'threads'`.
      on_end: called in this thread with the index and the outcome of each cell, in the
        order in which they end.
      dataset: a data set that replaces the one that the configurations name.
      once: what an earlier call or `choose` made, to use it again.

    Returns:
      The outcome of each cell. An error ends its own cell and no other.

    Raises:
      InputError: if `how` is unknown.

    Example:
      >>> from fedpeft_jax import configure
      >>> settings = {"full": "none", "rounds": 4, "max_buckets": 1, "baselines": ""}
      >>> cells = [configure(**settings, seed=seed) for seed in (0, 1)]
      >>> [result.state.round for result in run_together(cells)]
      [4, 4]
    """
    if how not in HOWS:
        raise InputError(f"how={how!r} is unknown: use one of {', '.join(HOWS)}")
    folders = folders or [None] * len(configs)
    callbacks = callbacks or [()] * len(configs)
    meeting = Rendezvous(configs, how)
    shared = once or Remembered()
    ended: queue.SimpleQueue[tuple[int, Outcome]] = queue.SimpleQueue()

    def work(cell: int) -> None:
        outcome: Any
        try:
            outcome = run(
                configs[cell],
                dataset=dataset,
                folder=folders[cell],
                callbacks=callbacks[cell],
                stop=stop,
                once=shared,
                compile_=meeting.compiler(cell),
            )
        except BaseException as error:  # the main thread decides
            outcome = error
        meeting.leave(cell)
        ended.put((cell, outcome))

    threads = [
        threading.Thread(target=work, args=(cell,), name=f"cell {cell}", daemon=True)
        for cell in range(len(configs))
    ]
    outcomes: dict[int, Outcome] = {}
    try:
        for thread in threads:
            thread.start()
        while len(outcomes) < len(threads):
            cell, outcome = ended.get()
            if not isinstance(outcome, RunResult | Exception):
                raise outcome
            outcomes[cell] = outcome
            if on_end is not None:
                on_end(cell, outcome)
    except BaseException:
        meeting.abandon()
        raise
    for thread in threads:
        thread.join()
    return [outcomes[cell] for cell in range(len(configs))]
