"""Plots as pictures: a PNG for papers, an SVG whose colours are the page's own.

Plot --matplotlib--> PNG of fixed colours; SVG of placeholders --variables of the page--> SVG

No state of matplotlib's is left changed, and the same plot gives the same bytes.
"""

import io
import re
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from deliberate.eval.report_folder.blocks import Line, Plot
from deliberate.eval.report_folder.numbers import MINUS

WIDTH, HEIGHT = 4.8, 2.9
"""Inches, without the legend: on a phone the letters are still to be read."""

LEGEND_ROW = 0.22
"""Inches."""

SHARPNESS = 200
"""Dots an inch of a PNG, twice what a screen has."""

APART = 0.09
"""Between the places of two lines that are set apart, on the first axis."""

HALF_ROW = 20
"""Letters of names of which two fit side by side."""

LONGEST_LABEL = 44
"""Letters of a line's name."""

Stroke = str | tuple[int, tuple[int, ...]]

STYLES: Sequence[tuple[str, str, Stroke]] = (
    ("c0", "o", "-"),
    ("c1", "s", "--"),
    ("c2", "^", "-."),
    ("c3", "D", ":"),
    ("c4", "v", (0, (5, 1))),
    ("c5", "P", (0, (3, 1, 1, 1))),
    ("c6", "X", (0, (1, 1))),
    ("c7", "*", (0, (7, 2, 1, 2))),
)
"""Colour, mark and stroke: no two differ by colour alone."""

SOFTWARE = "deliberate.eval.report_folder"
"""Said within each PNG, so that it is known for one of a report's."""

LIGHT = {
    "ink": "#1f2328", "muted": "#59636e", "rule": "#d5d9de",
    "c0": "#2f4fb5", "c1": "#59636e", "c2": "#b5460f", "c3": "#17743a",
    "c4": "#8a2fc9", "c5": "#8f6400", "c6": "#0b6f85", "c7": "#b3206b",
}  # fmt: skip
"""Colours by name, on white; the page has them as variables, and others for the dark."""

PLACEHOLDERS = {name: f"#fe{number:04x}" for number, name in enumerate(LIGHT)}
"""Colours that stand for the page's variables, and that nothing else has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pen:
    """Axes, and the colours to draw in."""

    axes: Axes
    colours: Mapping[str, str]


def png(plot: Plot) -> bytes:
    """A picture on white."""
    with _settings(plot):
        figure = _figure(plot, LIGHT)
        figure.set_facecolor("white")
        written = io.BytesIO()
        figure.savefig(written, format="png", dpi=SHARPNESS, metadata={"Software": SOFTWARE})
    return written.getvalue()


def svg(plot: Plot) -> str:
    """An element for a page that has the colours as variables."""
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with _settings(plot):
        written = io.StringIO()
        _figure(plot, PLACEHOLDERS).savefig(written, format="svg", metadata=nothing)
    return _inline(written.getvalue(), plot)


@contextmanager
def _settings(plot: Plot) -> Generator[None]:
    """Settings that can be given in no other way; undone at the end."""
    chosen: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": plot.name,
        "text.parse_math": False,  # a dollar in a run's name is a dollar
        "font.family": ["DejaVu Sans"],  # comes with matplotlib, so it is everywhere the same
        "font.size": 10.5,
        "axes.unicode_minus": True,
    }
    with rc_context(chosen), warnings.catch_warnings():
        # A name may have letters that the font lacks. A browser takes them from another.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font", module=".*")
        yield


def _figure(plot: Plot, colours: Mapping[str, str]) -> Figure:
    columns = 2 if all(len(line.label) <= HALF_ROW for line in plot.lines) else 1
    entries = len(plot.lines) + bool(plot.diagonal)
    rows = -(-entries // columns)
    figure = Figure(figsize=(WIDTH, HEIGHT + LEGEND_ROW * rows), layout="constrained")
    FigureCanvasAgg(figure)
    figure.set_facecolor("none")
    pen = _Pen(axes=figure.add_subplot(), colours=colours)
    _prepare(pen, plot)
    lines = [line for line in plot.lines if line.x]
    handles = [
        _draw_line(pen, line, apart=plot.beside, shift=(number - (len(lines) - 1) / 2) * APART)
        for number, line in enumerate(lines)
    ]
    farthest = max((x for line in lines for x in line.x), default=0)
    for line in lines:
        _write_names(pen, line, middle=farthest / 2)
    labels = [_shortened(line.label) for line in lines]
    if plot.diagonal:
        handles += pen.axes.plot(
            [0, 100], [0, 100], color=colours["muted"], linestyle=(0, (1, 3)), linewidth=1.2
        )
        labels.append(plot.diagonal)
    legend = figure.legend(
        handles,
        [str(number) for number in range(len(handles))],  # it leaves out what begins with "_"
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        labelcolor=colours["ink"],
        handlelength=3,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)
    return figure


def _prepare(pen: _Pen, plot: Plot) -> None:
    """Axes, scales, ticks and grid."""
    axes, colours = pen.axes, pen.colours
    axes.set_facecolor("none")
    axes.set_xlabel(plot.x_label, color=colours["ink"])
    axes.set_ylabel(plot.y_label, color=colours["ink"])
    axes.tick_params(colors=colours["muted"], length=3)
    axes.grid(visible=True, axis="y", color=colours["rule"], linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(colours["rule"])
    if plot.doubling:
        axes.set_xscale("log", base=2)
    if plot.ticks:
        axes.xaxis.set_major_locator(FixedLocator(list(plot.ticks)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if plot.bend is not None:
        axes.set_yscale("symlog", linthresh=plot.bend)
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(_signed))
    if plot.zero:
        axes.axhline(0, color=colours["muted"], linewidth=1)


def _draw_line(pen: _Pen, line: Line, *, apart: bool, shift: float) -> Line2D:
    name, mark, stroke = STYLES[line.style % len(STYLES)]
    colour = pen.colours[name]
    places = [x + shift for x in line.x] if apart else line.x
    bounded = len(line.low) == len(line.x) > 0
    if bounded and line.joined and not line.names and not apart:
        pen.axes.fill_between(
            line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0, zorder=1
        )
    elif bounded:
        pairs = zip(line.y, line.low, line.high, strict=True)
        reach = [(max(0.0, y - low), max(0.0, high - y)) for y, low, high in pairs]
        pen.axes.errorbar(
            places,
            line.y,
            yerr=[list(each) for each in zip(*reach, strict=True)],
            fmt="none",
            color=colour,
            elinewidth=1.2,
            capsize=3,
        )
    [drawn] = pen.axes.plot(
        places,
        line.y,
        color=colour,
        marker=mark,
        markersize=5.5 if len(line.x) <= MOST_MARKED else 0,
        linestyle=stroke if line.joined else "none",
        linewidth=1.8,
        zorder=3,
    )
    return drawn


MOST_MARKED = 24
"""Points of a line that has marks; of more they would hide it."""


def _write_names(pen: _Pen, line: Line, *, middle: float) -> None:
    """Names beside their points, on the side where there is room."""
    for x, y, name in zip(line.x, line.y, line.names, strict=bool(line.names)):
        right = x <= middle
        pen.axes.annotate(
            _shortened(name),
            (x, y),
            xytext=(7 if right else -7, 6),
            textcoords="offset points",
            ha="left" if right else "right",
            color=pen.colours["ink"],
            fontsize=9.5,
        )


def _signed(value: float, _: object) -> str:
    return f"{value:+g}".replace("-", MINUS) if value else "0"


def _shortened(label: str) -> str:
    """A name with its middle left out where it is too long; line ends would be drawn as such."""
    label = " ".join(label.split())
    half = LONGEST_LABEL // 2
    return label if len(label) <= LONGEST_LABEL else f"{label[:half]}…{label[-half + 1 :]}"


def _inline(text: str, plot: Plot) -> str:
    """An SVG file as an element of a page: its own names, the page's colours, its size."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<style type=.*?</style>", "", text, flags=re.DOTALL)  # meant for a page of one
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid=")', rf"\1{plot.name}-", text)
    text = re.sub(r'(url\(#|href="#)', rf"\1{plot.name}-", text)
    for name, colour in PLACEHOLDERS.items():
        text = text.replace(colour, f"var(--{name})")
    opening, rest = text.split(">", 1)
    opening = re.sub(r' (width|height)="[^"]*"', "", opening)
    return f'{opening} role="img" aria-label="{escape(plot.words)}">{rest.strip()}'
