"""The output of a grid as it runs: one bar, or plain lines where there is no terminal.

The bar shows the cells and the rounds that are done, the time that is left, and the
cell with the best validation so far.
"""

import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from fedpeft_jax.grids.cells import Cell
from fedpeft_jax.grids.execution import Outcome, Watcher

_PLAIN_SECONDS = 10.0


class GridProgress(Watcher):
    """Draws one bar for a grid, or prints lines at intervals and at each cell's end.

    Args:
      cells: all cells.
      done: the cells that have a result, with their best validation NDCG@10 or None.
      console: where to print; standard error by default.
      clock: returns seconds.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        done: Mapping[str, float | None],
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._clock, self._printed = clock, clock()
        self._begin: float | None = None  # when the first rounds had run
        self._totals = {cell.name: cell.config.run.rounds for cell in cells}
        self._rounds = {name: self._totals[name] for name in done}
        self._before: dict[str, int] = dict(self._rounds)
        self._ended = set(done)
        self._best: tuple[float, str] | None = None
        for name, ndcg in done.items():
            self._compare(name, ndcg)
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def note(self, text: str) -> None:
        """Prints a note on its own line."""
        self.console.print(text, markup=False, soft_wrap=True)

    def begin(self, cell: Cell) -> None:
        """Starts the bar."""
        if self._bar is None and self.console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.fields[cells]}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[figures]}", markup=False),
                console=self.console,
            )
            self._task = self._bar.add_task(
                "", total=sum(self._totals.values()), cells="", figures=""
            )
            self._bar.start()
        self._show()

    def rounds(self, cell: Cell, done: int, ndcg: float | None) -> None:
        """Updates the bar, or prints a line if the last one is some seconds old."""
        # Rounds before the first call say nothing of the speed: pretraining and
        # compilation precede them, or they were run at another time.
        self._before.setdefault(cell.name, done)
        if self._begin is None:
            self._begin = self._clock()
        self._rounds[cell.name] = done
        self._compare(cell.name, ndcg)
        self._show()

    def end(self, cell: Cell, outcome: Outcome) -> None:
        """Counts the cell as done, also if it stopped early or failed."""
        self._before.setdefault(cell.name, self._totals[cell.name])
        self._rounds[cell.name] = self._totals[cell.name]
        self._ended.add(cell.name)
        error = f": {outcome.error}" if outcome.error else ""
        if error or self._bar is None:
            self.note(f"{outcome.status}: {cell.name}{error}")
        self._show(at_once=True)

    def close(self) -> None:
        """Stops the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def line(self) -> str:
        """Returns the state of the grid in one line."""
        return f"{self._cells()}  {self._figures()}"

    def _cells(self) -> str:
        return f"cells {len(self._ended)}/{len(self._totals)}"

    def _figures(self) -> str:
        done, total = sum(self._rounds.values()), sum(self._totals.values())
        parts = [f"rounds {done}/{total}"]
        new = done - sum(self._before.values())
        if self._begin is not None and new > 0 and done < total:
            left = (self._clock() - self._begin) * (total - done) / new
            parts.append(f"left {_duration(left)}")
        if self._best is not None:
            parts.append(f"best {self._best[0]:.4f} {self._best[1]}")
        return "  ".join(parts)

    def _compare(self, name: str, ndcg: float | None) -> None:
        if ndcg is not None and (self._best is None or ndcg > self._best[0]):
            self._best = (ndcg, name)

    def _show(self, *, at_once: bool = False) -> None:
        if self._bar is not None:
            self._bar.update(
                self._task,
                completed=sum(self._rounds.values()),
                cells=self._cells(),
                figures=self._figures(),
            )
            return
        now = self._clock()
        if at_once or now - self._printed >= _PLAIN_SECONDS:
            self.note(self.line())
            self._printed = now


def _duration(seconds: float) -> str:
    """Returns a duration as hours, minutes and seconds.

    Example:
      >>> _duration(4000.4)
      '1:06:40'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
