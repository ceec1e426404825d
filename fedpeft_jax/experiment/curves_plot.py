"""Draws learning curves, with colours and line styles that everybody tells apart."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.curves import Curve, Folders, grouped, make_curves
from fedpeft_jax.experiment.plot_style import (
    COLORS,
    GRID,
    LINES,
    STYLE,
    check_matplotlib,
    draw_levels,
)
from fedpeft_jax.experiment.reporting import METRIC_LABELS, format_bytes

_LEGEND: Any = {"fontsize": 8.5, "frameon": False, "handlelength": 2.8}
_LONG, _MANY = 30, 5  # characters of a label, and curves, beside which no room is left
_FEW = 12  # at most so many points of a curve are marked
_STYLE: Any = {
    **STYLE,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
}
_X_LABELS = {"round": "round", "bytes": "bytes sent", "seconds": "seconds"}


def plot_curves(
    runs: Folders,
    metric: str = "ndcg@10",
    *,
    x: str = "round",
    baselines: bool | Sequence[str] = True,
    title: str | None = None,
    size: tuple[float, float] = (6.4, 3.8),
) -> Any:
    """Draws the learning curves of runs.

    Runs that differ only in their seed are one curve: the mean, in a band of one
    standard deviation on both sides. A run that goes on is drawn as far as it is.

    Args:
      runs: the folder of a run or of a grid, or several. A mapping from labels to
        folders names the curves; otherwise the settings that differ do.
      metric: a validation metric of the sampled ranking such as `'ndcg@10'`, `'loss'`,
        `'bytes'`, `'epsilon'`, or a figure such as `'clipped'`.
      x: `'round'`, `'bytes'` or `'seconds'`.
      baselines: whether to draw the baselines as horizontal lines, or the names of
        some. They are drawn if all runs have the same data and one has finished.
      title: above the plot; the name of the data set by default.
      size: width and height in inches.

    Returns:
      The figure, of matplotlib; `figure.savefig('curves.svg')` writes it.

    Raises:
      InputError: for an unknown metric, a folder without runs, or if matplotlib is not
        installed.
    """
    check_matplotlib("plot_curves")
    curves = make_curves(runs, metric, x)
    if not curves:
        raise InputError("the runs have measured nothing yet: wait for the first round")
    levels, name = _references(runs, metric, baselines)
    wide = max(len(curve.label) for curve in curves) > _LONG or len(curves) > _MANY
    width, height = size
    extra = 0.2 * len(curves) if wide else 0.0
    figure, (axes,) = make_figure(1, (width, height + extra))
    draw_curves(axes, curves, metric, x)
    draw_levels(axes, levels)
    if wide:  # below the plot, or it would hide the curves
        figure.legend(loc="outside lower left", **_LEGEND)
    elif len(curves) > 1 or isinstance(runs, Mapping):
        axes.legend(**_LEGEND)
    axes.set_title(name if title is None else title, loc="left", fontsize=10.5)
    return figure


def make_figure(panels: int, size: tuple[float, float]) -> tuple[Any, Sequence[Any]]:
    """Returns a figure with some panels side by side, and their axes.

    Args:
      panels: the number of panels.
      size: width and height in inches.
    """
    import matplotlib.pyplot as plt

    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(
            1, panels, figsize=size, dpi=100, squeeze=False, layout="constrained"
        )
    plt.close(figure)  # or a notebook would show it twice
    return figure, axes[0]


def draw_curves(axes: Any, curves: Sequence[Curve], metric: str, x: str) -> None:
    """Draws curves with their bands, and the labels of the axes.

    Args:
      axes: where.
      curves: the curves.
      metric: the name of their figure.
      x: `'round'`, `'bytes'` or `'seconds'`.
    """
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    # The line style changes with the colour, for who sees or prints no colours.
    looks = zip(itertools.cycle(COLORS), itertools.cycle(LINES), strict=False)
    for curve, (color, line) in zip(curves, looks, strict=False):
        several = f" ({curve.num_runs} seeds)" if curve.num_runs > 1 else ""
        axes.plot(
            curve.x,
            curve.mean,
            color=color,
            linestyle=line,
            linewidth=1.6,
            marker="o" if len(curve.x) <= _FEW else None,
            markersize=4,
            label=curve.label + several,
        )
        if curve.num_runs > 1:
            low, high = curve.mean - curve.spread, curve.mean + curve.spread
            axes.fill_between(curve.x, low, high, color=color, alpha=0.18, linewidth=0)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=x == "round"))
    axes.set_xlabel(_X_LABELS[x])
    axes.set_ylabel(metric_label(metric))
    for name, axis in ((x, axes.xaxis), (metric, axes.yaxis)):
        if name == "bytes":
            axis.set_major_formatter(FuncFormatter(lambda size, _: format_bytes(size)))


def metric_label(metric: str) -> str:
    """Returns the name of a figure as a plot writes it.

    Example:
      >>> metric_label("ndcg@10"), metric_label("loss"), metric_label("update_norm")
      ('validation NDCG@10', 'training loss', 'update norm')
    """
    if metric == "loss":
        return "training loss"
    if "@" in metric or metric == "mrr":
        return f"validation {METRIC_LABELS.get(metric, metric)}"
    return metric.replace("_", " ")


def _references(
    runs: Folders, metric: str, wanted: bool | Sequence[str]
) -> tuple[dict[str, float], str]:
    """Returns the heights of the baselines by name, and the name of the data set."""
    histories = [run for group in grouped(runs).values() for run in group]
    names = {str(run.config.get("dataset")) for run in histories}
    title = names.pop() if len(names) == 1 else ""
    summary = next((run.summary for run in histories if run.summary), None)
    if not title or summary is None or wanted is False:
        return {}, title
    found = {}
    for name, of in summary["baselines"].items():
        value = of.get("valid", {}).get("sampled", {}).get(metric)
        if value is not None and (wanted is True or name in wanted):
            found[name.replace("_", " ")] = float(value)
    return found, title
