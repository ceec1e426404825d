"""A plot in a notebook that follows a run: the loss and a validation metric."""

import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.callbacks import Callback
from fedpeft_jax.experiment.config import RunConfig
from fedpeft_jax.experiment.curves import Curve, value_of
from fedpeft_jax.experiment.curves_plot import draw_curves, make_figure
from fedpeft_jax.experiment.plot_style import check_matplotlib


class LivePlot(Callback):
    """Draws the training loss and a validation metric, and redraws them in place.

    Args:
      metric: a validation metric of the sampled ranking.
      seconds: the least time between two drawings.
      clock: returns seconds.

    Attributes:
      figure: the figure, after the first drawing.

    Raises:
      InputError: if matplotlib or IPython is not installed.
    """

    def __init__(
        self,
        metric: str = "ndcg@10",
        *,
        seconds: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_matplotlib("LivePlot")
        if importlib.util.find_spec("IPython") is None:
            raise InputError(
                "LivePlot needs IPython: run pip install -e '.[notebook]', or use "
                "`plot_curves` on the folder of the run"
            )
        self.figure: Any = None
        self._metric, self._seconds, self._clock = metric, seconds, clock
        self._begin()

    def _begin(self) -> None:
        self._points: dict[str, dict[int, float]] = {"loss": {}, self._metric: {}}
        self._handle: Any = None
        self._drawn = -np.inf
        self._total = 0

    def begin(self, config: RunConfig) -> None:
        """Begins a new plot."""
        self.figure = None
        self._begin()
        self._total = config.run.rounds

    def resume(self, done: int, entries: Sequence[Mapping[str, Any]]) -> None:
        """Adds what was measured before."""
        for entry in entries:
            self._add(entry)

    def progress(self, task: str, done: int, total: int, **values: float) -> None:
        """Adds the loss, and draws if it is time."""
        if task == "rounds":
            if "loss" in values:
                self._points["loss"][done] = values["loss"]
            if done == total or self._clock() - self._drawn >= self._seconds:
                self._draw()

    def validation(self, entry: Mapping[str, Any]) -> None:
        """Adds the metric; the progress of the same round draws it."""
        self._add(entry)

    def close(self) -> None:
        """Draws for the last time."""
        if self._handle is not None:
            self._draw()
            self._handle = None

    def _add(self, entry: Mapping[str, Any]) -> None:
        for name, points in self._points.items():
            value = value_of(entry, name)
            if value is not None:
                points[entry["round"]] = value

    def _draw(self) -> None:
        from IPython.display import display

        figure, panels = make_figure(2, (8.4, 3.0))
        last = 0
        for axes, (name, points) in zip(panels, self._points.items(), strict=True):
            x, y = np.array(list(points)), np.array(list(points.values()))
            last = max([last, *points])
            draw_curves(axes, [Curve(name, x, y, np.zeros(len(x)), 1)], name, "round")
            axes.set_xlim(0, self._total)
        figure.suptitle(f"round {last} of {self._total}", fontsize=10)
        self.figure = figure
        if self._handle is None:
            self._handle = display(figure, display_id=True)
        else:
            self._handle.update(figure)
        self._drawn = self._clock()
