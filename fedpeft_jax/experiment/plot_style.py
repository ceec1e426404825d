"""How all plots look, and that matplotlib, an extra, is there to draw them."""

import importlib.util
from collections.abc import Mapping
from typing import Any

from fedpeft_jax.core.errors import InputError

# Colours that people with any colour vision tell apart (Okabe and Ito), without yellow,
# which is too light for a thin line. Line styles change with them, for prints.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
LINES: tuple[Any, ...] = (
    *("-", (0, (5, 2)), (0, (1, 1.3)), (0, (5, 2, 1, 2)), (0, (9, 2))),
    *((0, (3, 1)), (0, (5, 2, 1, 2, 1, 2))),
)
GREY = "#777777"
GRID = "#e9e9e9"
STYLE: Any = {
    "font.family": "DejaVu Sans",  # matplotlib brings it along
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    # The same plot is the same file, byte for byte, wherever it is shown.
    "svg.hashsalt": "fedpeft_jax",
    "svg.fonttype": "path",
}
"""Settings of matplotlib."""


def check_matplotlib(what: str) -> None:
    """Raises InputError if matplotlib is not installed.

    Args:
      what: what needs it.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(f"{what} needs matplotlib: run pip install -e '.[plot]'")


def draw_levels(axes: Any, levels: Mapping[str, float]) -> None:
    """Draws horizontal lines with their names; lines close together share one text.

    Args:
      axes: where, after the curves.
      levels: the heights by name.
    """
    for value in levels.values():
        axes.axhline(value, color=GREY, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
    low, high = axes.get_ylim()
    groups: list[tuple[float, list[str]]] = []
    for name, value in sorted(levels.items(), key=lambda level: level[1]):
        if groups and value - groups[-1][0] < 0.05 * (high - low):
            groups[-1] = (value, [*groups[-1][1], name])
        else:
            groups.append((value, [name]))
    for value, names in groups:
        axes.annotate(
            ", ".join(names),
            (1, value),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 1.5),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=8,
            color="#555555",
        )
