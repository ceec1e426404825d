"""Draws accuracy against total bytes: one point per row of a comparison.

The same comparison gives the same file, byte for byte, with the same matplotlib.
"""

import io
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.experiment.pareto import Comparison, ParetoRow, on_front
from fedpeft_jax.experiment.plot_labels import place_labels
from fedpeft_jax.experiment.plot_style import (
    GREY,
    GRID,
    STYLE,
    check_matplotlib,
    draw_levels,
)
from fedpeft_jax.experiment.reporting import METRIC_LABELS, format_bytes

PLOT_ENDINGS = (".png", ".svg")

# Colours that people with any colour vision tell apart (Okabe and Ito), and markers.
_LOOKS = {
    "Full": ("#222222", "s"),
    "LoRA": ("#0072B2", "o"),
    "Hash": ("#D55E00", "^"),
    "RQ": ("#009E73", "D"),
    "other": ("#8A6D9F", "v"),
}
_FILLS = {"": "full", "without merges": "white", "without table": "bottom"}


def check_plot(path: pathlib.Path) -> None:
    """Checks that a plot can be drawn.

    Args:
      path: the file that it will be written to.

    Raises:
      InputError: for a file of an unknown kind, or if matplotlib is not installed.
    """
    if path.suffix.lower() not in PLOT_ENDINGS:
        known = " or ".join(PLOT_ENDINGS)
        raise InputError(f"--plot={path} is of no known kind: let it end in {known}")
    check_matplotlib(f"--plot={path}")


def draw(compared: Comparison, path: pathlib.Path) -> None:
    """Writes the plot of a comparison, 1000 by 560 pixels or twice as many.

    Args:
      compared: the rows; those that send nothing have no place on the axis of bytes.
      path: the file, which ends in one of `PLOT_ENDINGS`.

    Raises:
      InputError: if no row sends anything.
      OSError: if the file cannot be written.
    """
    if not any(row.total_bytes > 0 for row in compared.rows):
        raise InputError(f"--plot={path}: no run sends a byte; leave the plot out")
    path.write_bytes(render(compared, path.suffix.lower().removeprefix(".")))


def render(compared: Comparison, kind: str) -> bytes:
    """Returns the plot of a comparison as the content of a file.

    Args:
      compared: the rows, some of which send something.
      kind: `'svg'` or `'png'`.
    """
    import matplotlib
    from matplotlib.figure import Figure

    metadata: dict[str, Any] = {"Date": None, "Creator": None}
    content = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 5.6), dpi=100)
        panels = figure.subplots(1, 2)
        figure.subplots_adjust(
            left=0.065, right=0.985, top=0.9, bottom=0.19, wspace=0.16
        )
        names = [name for ranking, name in compared.metrics if ranking == "sampled"]
        for panel, name in zip(panels, names, strict=True):
            _draw_panel(panel, compared, name)
        _draw_legend(figure, compared)
        figure.savefig(
            content,
            format=kind,
            dpi=200 if kind == "png" else 72,
            metadata=metadata if kind == "svg" else {"Software": None},
        )
    return content.getvalue()


def _draw_panel(axes: Any, compared: Comparison, name: str) -> None:
    """Draws one metric of the sampled ranking against bytes in percent of Full's."""
    rows = [row for row in compared.rows if row.total_bytes > 0]
    points = [(100 * row.fraction, *row.figures["sampled", name]) for row in rows]
    front = on_front([x for x, _, _ in points], [y for _, y, _ in points])
    heights = [y + sign * spread for _, y, spread in points for sign in (-1, 1)]
    levels = _near(compared, name, heights)
    _set_axes(axes, [x for x, _, _ in points], [*heights, *levels.values()])
    draw_levels(axes, levels)
    for row, (_, y, _) in zip(rows, points, strict=True):
        if row.is_reference:
            axes.axhline(y, color=GREY, linewidth=0.9, linestyle=(0, (5, 4)), zorder=1)
    best = sorted((x, y) for (x, y, _), on in zip(points, front, strict=True) if on)
    best.append((axes.get_xlim()[1], best[-1][1]))
    axes.step(
        [x for x, _ in best],
        [y for _, y in best],
        where="post",
        color=GREY,
        linewidth=0.9,
        zorder=1,
    )
    for row, (x, y, spread) in zip(rows, points, strict=True):
        color = _LOOKS[row.family][0]
        if spread:
            axes.errorbar(x, y, spread, color=color, linewidth=1.1, capsize=2.5)
        axes.plot(x, y, **_marker(row))
    axes.set_title(METRIC_LABELS[name], loc="left", fontsize=11, fontweight="bold")
    axes.set_xlabel(
        "bytes of a run, in % of Full in float32 "
        f"({format_bytes(compared.reference_bytes)})"
    )
    place_labels(axes, [row.label for row in rows], points, front)


def _marker(row: ParetoRow) -> dict[str, Any]:
    """Returns how the point of a row looks, as keyword arguments of a line."""
    (color, shape), fill = _LOOKS[row.family], _FILLS[row.variant]
    return {
        "color": color,
        "marker": shape,
        "markersize": 6.5,
        "markeredgewidth": 1.3,
        "fillstyle": "bottom" if fill == "bottom" else "full",
        "markerfacecolor": "white" if fill == "white" else color,
        "markerfacecoloralt": "white",
        "linestyle": "none",
        "zorder": 3,
    }


def _near(
    compared: Comparison, name: str, heights: Sequence[float]
) -> dict[str, float]:
    """Returns the baselines that have a place on the axis: others would flatten it."""
    bottom, top = min(heights), max(heights)
    room = 0.5 * max(top - bottom, 0.01)
    levels = {
        baseline.replace("_", " "): figures["sampled", name].mean
        for baseline, figures in compared.baselines.items()
    }
    return {k: y for k, y in levels.items() if bottom - room <= y <= top + room}


def _set_axes(axes: Any, shares: Sequence[float], heights: Sequence[float]) -> None:
    """Sets limits, ticks and grid lines."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = min(shares), max(shares)
    wide = max(math.log10(high / low), 0.5)
    margin = 10 ** (0.14 * wide)
    axes.set_xscale("log")
    axes.set_xlim(low / margin, high * margin)
    bottom, top = min(heights), max(heights)
    room = 0.1 * max(top - bottom, 0.01)
    axes.set_ylim(bottom - room, top + room)
    steps = (1, 2, 3, 5, 7) if wide < 1 else (1, 2, 5) if wide < 2.5 else (1,)
    axes.xaxis.set_major_locator(LogLocator(base=10, subs=steps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g} %"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(True, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)


def _draw_legend(figure: Any, compared: Comparison) -> None:
    """Draws the families and the lines below both panels."""
    from matplotlib.lines import Line2D

    handles = []
    for family in _LOOKS:
        for variant in _FILLS:
            row = next(
                (
                    row
                    for row in compared.rows
                    if (row.family, row.variant) == (family, variant)
                ),
                None,
            )
            if row is not None:
                label = f"{family} {variant}".strip()
                handles.append(Line2D([], [], label=label, **_marker(row)))
    line: dict[str, Any] = {"color": GREY, "linewidth": 0.9}
    handles.append(Line2D([], [], label="Pareto front", **line))
    if any(row.is_reference for row in compared.rows):
        dashes = (0, (5, 4))
        handles.append(Line2D([], [], label="Full, float32", linestyle=dashes, **line))
    figure.legend(
        handles=handles,
        loc="lower center",
        ncols=min(len(handles), 6),
        frameon=False,
        handletextpad=0.5,
        columnspacing=1.6,
    )
    data = compared.dataset["name"]
    most = max(len(row.seeds) for row in compared.rows)
    bars = f"; bars: standard deviation over {most} seeds" if most > 1 else ""
    title = f"{data}: test items against sampled negatives{bars}"
    figure.text(0.065, 0.965, title, color="#444444", va="center")
