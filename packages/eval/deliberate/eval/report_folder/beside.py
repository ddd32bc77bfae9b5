"""Names beside the points of a plot, set off from one another where points are close.

points, names --where nothing is written yet--> annotations
"""

from collections.abc import Iterator, Sequence
from textwrap import wrap

from matplotlib.axes import Axes

from deliberate.eval.report_folder.blocks import Line

LETTERS = 26
"""Of a row of a name."""

SIZE = 9.5
"""Points of a letter's height."""

ROW = 1.25 * SIZE
LETTER = 0.6 * SIZE
"""Points that a letter of common width takes."""

STEPS = 8
"""Rows up or down that a name may be moved."""

Box = tuple[float, float, float, float]
"""Left, bottom, right and top, in points."""


def write_names(axes: Axes, lines: Sequence[Line], *, colour: str) -> None:
    """Write each name near its point, where there is room.

    Args:
        axes: With their final limits and place.
        lines: Of which some have names.
        colour: Of the letters.
    """
    scale = 72 / axes.figure.dpi
    named = [(x, y, name) for line in lines for x, y, name in _named(line)]
    points: list[list[float]] = []
    if named:
        points = (axes.transData.transform([(x, y) for x, y, _ in named]) * scale).tolist()
    frame = [float(edge) * scale for edge in axes.get_window_extent().extents]
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    for (x, y, name), (left, bottom) in zip(named, points, strict=True):
        rows = wrap(name, LETTERS) or [""]
        right = left <= (frame[0] + frame[2]) / 2
        wide, high = LETTER * max(map(len, rows)), ROW * len(rows)
        above, box = _free((left, bottom), (wide if right else -wide, high), taken, frame)
        taken.append(box)
        far = abs(above - FIRST) > ROW
        axes.annotate(
            "\n".join(rows),
            (x, y),
            xytext=(SIDE if right else -SIDE, above),
            textcoords="offset points",
            ha="left" if right else "right",
            va="bottom",
            color=colour,
            fontsize=SIZE,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5} if far else None,
        )


SIDE, FIRST = 7.0, 4.0
"""Points from a point to its name."""


def _named(line: Line) -> Iterator[tuple[float, float, str]]:
    yield from zip(line.x, line.y, line.names, strict=bool(line.names))


def _free(
    point: tuple[float, float],
    size: tuple[float, float],
    taken: Sequence[Box],
    frame: Sequence[float],
) -> tuple[float, Box]:
    """How far above its point a name goes, and the box that it takes there."""
    (x, y), (wide, high) = point, size
    start = x + (SIDE if wide > 0 else -SIDE)
    left, right = sorted((start, start + wide))
    offsets = [FIRST]
    for step in range(1, STEPS + 1):
        offsets += [FIRST + step * ROW, FIRST - high - step * ROW + ROW / 2]
    for above in offsets:
        box = (left, y + above, right, y + above + high)
        within = frame[1] <= box[1] and box[3] <= frame[3]
        if within and not any(_meet(box, other) for other in taken):
            return above, box
    return FIRST, (left, y + FIRST, right, y + FIRST + high)


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
