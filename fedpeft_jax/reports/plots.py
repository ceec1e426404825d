"""Plots of a report as SVG: learning curves, accuracy over a setting, and slices.

Every row has its own colour, line style and, in plots of few points, marker. The same
values give the same bytes.
"""

import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedpeft_jax.experiment.curves import Curve
from fedpeft_jax.experiment.curves_plot import draw_curves
from fedpeft_jax.experiment.plot_style import COLORS, GRID, LINES, STYLE, draw_levels

MOST_ROWS = 7
"""The most rows that one plot shows."""

_MARKERS = "o^DsvP*"
_STYLE: Any = {**STYLE, "font.size": 10.5, "legend.frameon": False}


def learning_curves(lines: Sequence[Curve], levels: Mapping[str, float]) -> str:
    """Returns learning curves with bands of one standard deviation.

    Args:
      lines: validation NDCG@10 by round.
      levels: baselines, horizontal lines.
    """
    draw = functools.partial(draw_curves, curves=lines, metric="ndcg@10", x="round")
    return _figure(draw, levels)


def over_setting(lines: Sequence[Curve], levels: Mapping[str, float], name: str) -> str:
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


def slices(lines: Sequence[Curve], names: Sequence[str], xlabel: str) -> str:
    """Returns test NDCG@10 by thirds of the users or items, as dots with bars.

    Args:
      lines: test NDCG@10 by third, at most `MOST_ROWS`.
      names: the names of the thirds.
      xlabel: what the thirds are of.
    """

    def draw(axes: Any) -> None:
        width = 0.7 / max(len(lines), 1)
        for place, line in enumerate(lines):
            at = line.x + (place - (len(lines) - 1) / 2) * width
            look = _look(place)
            axes.errorbar(
                at, line.mean, line.spread, label=line.label, capsize=3, markersize=6,
                **{**look, "linestyle": "none"},
            )  # fmt: skip
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.6, len(names) - 0.4)
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
        "color": COLORS[place % len(COLORS)],
        "marker": _MARKERS[place % len(_MARKERS)],
        "linestyle": LINES[place % len(LINES)],
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
        draw_levels(axes, levels)
        axes.grid(True, axis="y", color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        columns = 2 if max(map(len, labels), default=0) < 32 else 1
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        content = io.BytesIO()
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return as_element(content.getvalue())
