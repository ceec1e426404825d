"""Plots of a report as SVG: learning curves, accuracy over a setting, and slices.

Colours are those of Okabe and Ito, which people with any colour vision tell apart, and
every row also has its own marker and line style. The same values give the same bytes.
"""

import importlib.util
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fedpeft_jax.core.errors import InputError

MOST_ROWS = 8
"""The most rows that one plot shows."""

_COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8A6D00", "#56B4E9", "#222222",
    "#8A6D9F",
)  # fmt: skip
_MARKERS = "o^DsvPX*"
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (4, 1.5, 1, 1.5)))
_GREY = "#6b6b6b"
_STYLE: Any = {
    "font.family": "DejaVu Sans",  # matplotlib brings it along
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.titlesize": 11,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "svg.hashsalt": "fedpeft_jax",
    "svg.fonttype": "path",
}


class Line(NamedTuple):
    """One row of a plot.

    Attributes:
      label: the name of the row.
      x: float64[N], places; or their names.
      mean: float64[N], means over seeds.
      spread: float64[N], standard deviations over seeds.
    """

    label: str
    x: Sequence[Any]
    mean: np.ndarray
    spread: np.ndarray


def check_matplotlib() -> None:
    """Raises InputError if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(
            "a report needs matplotlib for its plots: run pip install -e '.[plot]'"
        )


def curves(lines: Sequence[Line], levels: Mapping[str, float]) -> str:
    """Returns learning curves with bands of one standard deviation.

    Args:
      lines: validation NDCG@10 by round, at most `MOST_ROWS`.
      levels: baselines, horizontal lines.
    """

    def draw(axes: Any) -> None:
        for place, line in enumerate(lines):
            axes.plot(
                line.x,
                line.mean,
                label=line.label,
                markevery=max(len(line.x) // 8, 1),
                markersize=4.5,
                **_look(place),
            )
            low, high = line.mean - line.spread, line.mean + line.spread
            axes.fill_between(
                line.x, low, high, color=_COLORS[place], alpha=0.15, linewidth=0
            )
        from matplotlib.ticker import MaxNLocator

        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.set_xlabel("round")
        axes.set_ylabel("validation NDCG@10, sampled")

    return _figure(draw, levels)


def over_setting(lines: Sequence[Line], levels: Mapping[str, float], name: str) -> str:
    """Returns test NDCG@10 over the values of a setting.

    Args:
      lines: test NDCG@10 by value, at most `MOST_ROWS`.
      levels: baselines, horizontal lines.
      name: the name of the setting.
    """
    positive = min(min(line.x) for line in lines) > 0
    largest = max(max(line.x) for line in lines)
    wide = positive and largest / min(min(line.x) for line in lines) >= 8

    def draw(axes: Any) -> None:
        from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

        for place, line in enumerate(lines):
            axes.errorbar(
                line.x,
                line.mean,
                line.spread,
                label=line.label,
                capsize=3,
                markersize=6,
                **_look(place),
            )
        if wide:
            axes.set_xscale("log")
        ticks = sorted({x for line in lines for x in line.x})
        if len(ticks) <= 9:
            axes.xaxis.set_major_locator(FixedLocator(ticks))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.set_xlabel(name)
        axes.set_ylabel("test NDCG@10, sampled")

    return _figure(draw, levels)


def slices(lines: Sequence[Line], xlabel: str) -> str:
    """Returns test NDCG@10 by thirds of the users or items, as dots with bars.

    Args:
      lines: test NDCG@10 by third, whose `x` are the names of the thirds.
      xlabel: what the thirds are of.
    """

    def draw(axes: Any) -> None:
        width = 0.7 / max(len(lines), 1)
        for place, line in enumerate(lines):
            at = np.arange(len(line.x)) + (place - (len(lines) - 1) / 2) * width
            look = _look(place)
            axes.errorbar(
                at, line.mean, line.spread, label=line.label, capsize=3, markersize=6,
                **{**look, "linestyle": "none"},
            )  # fmt: skip
        axes.set_xticks(range(len(lines[0].x)), lines[0].x)
        axes.set_xlim(-0.6, len(lines[0].x) - 0.4)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(xlabel)
        axes.set_ylabel("test NDCG@10, sampled")

    return _figure(draw, {})


def as_element(svg: bytes) -> str:
    """Returns an SVG file as an element of a page, which fills the width it is given.

    Args:
      svg: the content of the file.
    """
    text = svg.decode()
    text = text[text.index("<svg") :]
    # The page sets the size, and the view box keeps the proportions.
    head, rest = text.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    rest = re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.S)
    return f"{head}>{rest}".strip()


def unique_ids(svg: str, prefix: str) -> str:
    """Returns an SVG element whose ids begin with a prefix.

    Args:
      svg: the element. Several elements of one page would else share ids.
      prefix: the prefix.

    Example:
      >>> unique_ids('<g id="a"><use xlink:href="#a" clip-path="url(#a)"/></g>', "p1-")
      '<g id="p1-a"><use xlink:href="#p1-a" clip-path="url(#p1-a)"/></g>'
    """
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = svg.replace('href="#', f'href="#{prefix}')
    return svg.replace("url(#", f"url(#{prefix}")


def _look(place: int) -> dict[str, Any]:
    return {
        "color": _COLORS[place % len(_COLORS)],
        "marker": _MARKERS[place % len(_MARKERS)],
        "linestyle": _DASHES[place % len(_DASHES)],
        "linewidth": 1.6,
    }


def _figure(draw: Callable[[Any], None], levels: Mapping[str, float]) -> str:
    """Draws one pair of axes with baselines and a legend below."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6.8, 4.4), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        handles, labels = axes.get_legend_handles_labels()
        _draw_levels(axes, levels)
        axes.grid(True, axis="y", color="#e9e9e9", linewidth=0.7)
        axes.set_axisbelow(True)
        columns = 2 if max(map(len, labels), default=0) < 32 else 1
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return as_element(content.getvalue())


def _draw_levels(axes: Any, levels: Mapping[str, float]) -> None:
    """Draws baselines; those that are close together share one text."""
    for level in levels.values():
        axes.axhline(level, color=_GREY, linewidth=0.9, linestyle=(0, (2, 2)))
    low, high = axes.get_ylim()
    groups: list[list[tuple[float, str]]] = []
    for level, name in sorted((x, n.replace("_", " ")) for n, x in levels.items()):
        if groups and level - groups[-1][0][0] < 0.045 * (high - low):
            groups[-1].append((level, name))
        else:
            groups.append([(level, name)])
    for group in groups:
        axes.annotate(
            ", ".join(name for _, name in reversed(group)),
            (1, group[-1][0]),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="right",
            color=_GREY,
            fontsize=9,
        )
