"""Places the labels of points so that they overlap neither each other nor the points.

Every label gets the best of a fixed set of places around its point. A label that has no
free place is left out; the table beside a plot has all of them.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

_DISTANCES = (8.0, 15.0, 24.0, 36.0, 50.0, 66.0)  # pixels from the point to the label
_ANGLES = tuple(range(0, 360, 15))
_MARKER = 5.0  # half the width of a marker with its edge, in pixels
_GAP = 1.5  # free pixels around a label
_LEADER = 14.0  # from this distance on, a line leads from the label to its point


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: "Box") -> float:
        """Returns the area that two rectangles share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(width, 0.0) * max(height, 0.0)

    def holds(self, other: "Box") -> bool:
        """Returns whether another rectangle is inside."""
        return (
            self.left <= other.left
            and self.bottom <= other.bottom
            and self.right >= other.right
            and self.top >= other.top
        )


def choose_places(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    order: Sequence[int],
    inside: Box,
    thin: Sequence[Box] = (),
) -> dict[int, tuple[Box, float]]:
    """Returns a place for every label that has a free one.

    Args:
      points: the points, in pixels.
      sizes: width and height of each label, in pixels.
      order: the labels in the order in which they choose.
      inside: the rectangle that labels must stay in.
      thin: lines as rectangles, which a label may cover if there is no better place.

    Returns:
      The rectangle of a label and its distance from the point in pixels, by its number.

    Example:
      >>> places = choose_places([(50, 50)], [(20, 10)], [0], Box(0, 0, 100, 100))
      >>> places[0][1]
      8.0
    """
    markers = [
        Box(x - _MARKER, y - _MARKER, x + _MARKER, y + _MARKER) for x, y in points
    ]
    found: dict[int, tuple[Box, float]] = {}
    leaders: list[Box] = []
    for number in order:
        labels = [box for box, _ in found.values()]
        blocked = [*markers[:number], *markers[number + 1 :], *labels]
        best = math.inf, 0.0, Box(0, 0, 0, 0)
        for distance, angle in itertools.product(_DISTANCES, _ANGLES):
            box = _beside(points[number], sizes[number], distance, angle)
            free = inside.holds(box) and not any(
                box.overlap(other) for other in (*markers, *labels, *leaders)
            )
            if free and distance >= _LEADER:
                dots = _leader(points[number], box)
                free = not any(d.overlap(b) for d in dots for b in blocked)
            if free:
                cost = distance + sum(box.overlap(line) for line in thin) / 2
                best = min(best, (cost, distance, box))
        cost, distance, box = best
        if cost < math.inf:
            found[number] = (box, distance)
            if distance >= _LEADER:
                leaders += _leader(points[number], box)
    return found


def place_labels(
    axes: Any,
    labels: Sequence[str],
    points: Sequence[tuple[float, float, float]],
    front: Sequence[bool],
) -> None:
    """Writes labels beside the points of a plot; those on the front choose first.

    Args:
      axes: matplotlib's axes, whose limits are final.
      labels: one text per point.
      points: x, y and half the length of the error bar, in units of the axes.
      front: whether a point is on the front; its label is bold.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = axes.figure
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [
        axes.text(
            0.5,
            0.5,
            label,
            transform=None,
            fontsize=8.5,
            fontweight="bold" if bold else "normal",
            color="#222222",
            ha="center",
            va="center",
            zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.3},
        )
        for label, bold in zip(labels, front, strict=True)
    ]
    extents = [text.get_window_extent(renderer) for text in texts]
    at = [tuple(axes.transData.transform((x, y))) for x, y, _ in points]
    bars = []
    for (x, _), (_, y, spread) in zip(at, points, strict=True):
        low, high = (axes.transData.transform((1, y + s))[1] for s in (-spread, spread))
        bars.append(Box(x - 3, low, x + 3, high))
    places = choose_places(
        [(float(x), float(y)) for x, y in at],
        [(extent.width, extent.height) for extent in extents],
        sorted(range(len(labels)), key=lambda i: (not front[i], at[i])),
        Box(*axes.bbox.extents),
        [*bars, *_lines(axes)],
    )
    back = axes.transAxes.inverted()
    for number, text in enumerate(texts):
        if number not in places:
            text.remove()
            continue
        box, distance = places[number]
        middle = ((box.left + box.right) / 2, (box.bottom + box.top) / 2)
        text.set_transform(axes.transAxes)
        text.set_position(back.transform(middle))
        if distance >= _LEADER:
            ends = [
                back.transform(at[number]),
                back.transform(_nearest(at[number], box)),
            ]
            axes.plot(
                [x for x, _ in ends],
                [y for _, y in ends],
                transform=axes.transAxes,
                color="#999999",
                linewidth=0.7,
                zorder=2,
            )


def _lines(axes: Any) -> list[Box]:
    """Returns the horizontal and vertical lines of a plot as thin rectangles."""
    found = []
    for line in axes.get_lines():
        corners = line.get_transform().transform_path(line.get_path()).vertices
        if line.get_drawstyle() == "steps-post":
            path = axes.transData.transform(line.get_xydata())
            corners = [
                corner
                for (x0, y0), (x1, y1) in itertools.pairwise(path)
                for corner in ((x0, y0), (x1, y0), (x1, y1))
            ]
        for (x0, y0), (x1, y1) in itertools.pairwise(corners):
            left, right = sorted((float(x0), float(x1)))
            bottom, top = sorted((float(y0), float(y1)))
            found.append(Box(left - 1, bottom - 1, right + 1, top + 1))
    return found


def _nearest(point: tuple[float, float], box: Box) -> tuple[float, float]:
    """Returns the point of a rectangle that is nearest to a point."""
    x, y = point
    return min(max(x, box.left), box.right), min(max(y, box.bottom), box.top)


def _leader(point: tuple[float, float], box: Box) -> list[Box]:
    """Returns the line from a point to its label as small rectangles."""
    (x0, y0), (x1, y1) = point, _nearest(point, box)
    steps = [i / 12 for i in range(1, 12)]
    dots = [(x0 + s * (x1 - x0), y0 + s * (y1 - y0)) for s in steps]
    return [Box(x - 1, y - 1, x + 1, y + 1) for x, y in dots]


def _beside(
    point: tuple[float, float], size: tuple[float, float], distance: float, angle: int
) -> Box:
    """Returns the rectangle of a label in a direction from its point."""
    x, y = point
    width, height = size[0] + 2 * _GAP, size[1] + 2 * _GAP
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # The nearest edge of the label is at the distance, for any direction.
    middle_x = x + cosine * (distance + width / 2)
    middle_y = y + sine * (distance + height / 2)
    return Box(
        middle_x - width / 2,
        middle_y - height / 2,
        middle_x + width / 2,
        middle_y + height / 2,
    )
