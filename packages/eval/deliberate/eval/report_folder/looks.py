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

COLOURS = ("c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9", "c10", "c11")
"""One for each condition that a plot may have beside the base and the latents."""

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
    "c0": "#2f4fb5", "c1": "#59636e", "c2": "#c15627", "c3": "#165d1b",
    "c4": "#72009d", "c5": "#7c7903", "c6": "#1c4159", "c7": "#bb0a71",
    "c8": "#4c0039", "c9": "#013305", "c10": "#7a2a01", "c11": "#9a4cda",
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
