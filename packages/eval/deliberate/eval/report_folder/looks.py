"""How a condition looks on a plot: its colour, mark and stroke, none like another's.

number of a style --> Look; name of a colour --> value on white, stand-in within an SVG
"""

from dataclasses import dataclass

Stroke = str | tuple[int, tuple[int | float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a line is drawn with."""

    colour: str
    """Its name: `LIGHT`."""

    mark: str
    stroke: Stroke
    width: float


LATENTS = Look(colour="c0", mark="o", stroke="-", width=2.8)
"""The strongest: the only stroke without gaps."""

BASE = Look(colour="c1", mark="s", stroke="--", width=1.6)

COLOURS = ("c2", "c3", "c4", "c5", "c6", "c7")
MARKS = ("^", "D", "v", "P", "X", "*", "<", "h", ">")
STROKES: tuple[Stroke, ...] = (
    (0, (6, 2, 1, 2)),
    (0, (1, 1.2)),
    (0, (7, 1.5)),
    (0, (4, 1, 1, 1, 1, 1)),
    (0, (2.5, 2.5)),
)
"""With `MARKS`, of which there are nine, alike only after 45, without any colour."""

LIGHT = {
    "ink": "#1f2328", "muted": "#59636e", "rule": "#d5d9de",
    "c0": "#2f4fb5", "c1": "#59636e", "c2": "#b5460f", "c3": "#17743a",
    "c4": "#8a2fc9", "c5": "#8f6400", "c6": "#0b6f85", "c7": "#b3206b",
}  # fmt: skip
"""Colours by name, on white; the page has them as variables, and others for the dark."""

PLACEHOLDERS = {name: f"#fe{number:04x}" for number, name in enumerate(LIGHT)}
"""Colours that stand for the page's variables, and that nothing else has."""


def look(style: int) -> Look:
    """How the lines of a style are drawn.

    Args:
        style: 0 is of latents, 1 of the base, and each above of something else.
    """
    if style < 2:
        return BASE if style else LATENTS
    number = style - 2
    return Look(
        colour=COLOURS[number % len(COLOURS)],
        mark=MARKS[number % len(MARKS)],
        stroke=STROKES[number % len(STROKES)],
        width=1.6,
    )
