"""What a report is made of, said once for every form that it is written in.

results --> Sections of Tables, Plots, Examples --page.py, markdown.py, draw.py--> files
"""

from collections.abc import Sequence
from dataclasses import dataclass

Number = int | float
"""As JSON gives it: a whole one is no `float`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of a table."""

    text: str
    interval: str = ""
    """Of `text`: at 95 % where it was resampled, of a time the least and the most."""

    tone: str = ""
    """`better` or `worse` where the interval tells, else nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under headings; the first cell of each row says what the row is."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    """What its reader has to know."""

    folded: bool = False
    """Whether a page shows it only where it is asked for."""

    words: bool = False
    """Whether its cells are words, which begin at the left, and not numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Points of one condition."""

    label: str
    x: Sequence[Number]
    y: Sequence[Number]
    low: Sequence[Number] = ()
    """Of each `y`: at 95 % where it was resampled, of a time the least; or none."""

    high: Sequence[Number] = ()
    names: Sequence[str] = ()
    """What is written beside each point, if anything."""

    style: int = 0
    """Which colour, mark and stroke: `looks.look`."""

    joined: bool = True
    """Whether a stroke goes from point to point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One pair of axes."""

    name: str
    """Of its file, without an ending."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    ticks: Sequence[Number] = ()
    """On the first axis; none are where the library sets them."""

    doubling: bool = False
    """Whether each step on the first axis is a doubling."""

    bounds: tuple[Number, Number] | None = None
    """Of the second axis: what is beyond is not drawn; none are where the library sets them."""

    note: str = ""
    """What its reader has to know."""

    keys: bool = True
    """Whether it says how each line looks; else a plot of `keys_alone` beside it does."""

    keys_alone: bool = False
    """Whether it has no axes, and only says how lines look."""

    beside: bool = False
    """Whether lines share their places on the first axis, and are set a little apart."""

    zero: bool = False
    """Whether there is a line where the second axis is 0."""

    diagonal: str = ""
    """What the line from 0, 0 to 100, 100 is, if there is one."""

    @property
    def words(self) -> str:
        """What is seen, for those who do not see it."""
        if self.keys_alone:
            return f"{self.title}: {', '.join(line.label for line in self.lines)}."
        said = [f"{self.title}. {self.x_label} against {self.y_label}."]
        for line in self.lines:
            points = [f"{y:.4g} at {x:g}" for x, y in zip(line.x, line.y, strict=True)]
            few = points if len(points) <= MOST_SAID else [points[0], points[-1]]
            said.append(f"{line.label}: {', '.join(few)}.")
        return " ".join(said)


MOST_SAID = 8
"""Points of a line that are all said; of more the first and the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token ahead and how probable it was."""

    text: str
    base: Number
    """Probability without latents."""

    latents: Number
    """Probability with them."""

    tint: int
    """How the two compare, from -4 (far less probable with latents) to 4."""

    times: str
    """The second over the first, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A place where latents were read, and what came after it."""

    heading: str
    before: str
    tokens: Sequence[Token]


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """Some places of one sort."""

    heading: str
    examples: Sequence[Example]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A paragraph, about a run if there are several."""

    text: str
    run: str = ""
    quiet: bool = False
    """Whether it is beside the point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Something to be read letter by letter."""

    caption: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number that the report begins with."""

    value: str
    label: str
    interval: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The numbers that the report begins with."""

    figures: Sequence[Figure]


Block = Table | Plot | Examples | Said | Code | Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and what is under it."""

    name: str
    """In a link."""

    heading: str
    blocks: Sequence[Block]
