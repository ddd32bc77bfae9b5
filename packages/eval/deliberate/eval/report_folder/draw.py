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
from math import inf, nan
from textwrap import wrap
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from deliberate.eval.report_folder.beside import write_names
from deliberate.eval.report_folder.blocks import Line, Plot
from deliberate.eval.report_folder.looks import LIGHT, PLACEHOLDERS, look

WIDTH, HEIGHT = 4.8, 2.9
"""Inches, without the legend: on a phone the letters are still to be read."""

LEGEND_ROW = 0.22
"""Inches."""

SHARPNESS = 200
"""Dots an inch of a PNG, twice what a screen has."""

APART = 0.09
"""At most between the places of two lines that are set apart, on the first axis."""

ALL_APART = 0.8
"""At most between the first and the last of them."""

HALF_ROW, WHOLE_ROW = 20, 46
"""Letters of a row of the legend, where two names fit side by side and where one does."""

SOFTWARE = "deliberate.eval.report_folder"
"""Said within each PNG, so that it is known for one of a report's."""


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
    lines = [line for line in plot.lines if line.x or plot.keys_alone]
    names = [line.label for line in lines] + ([plot.diagonal] if plot.diagonal else [])
    columns = 2 if all(len(name) <= HALF_ROW for name in names) else 1
    labels = [_wrapped(name, HALF_ROW if columns == 2 else WHOLE_ROW) for name in names]
    rows = sum(label.count("\n") + 1 for label in labels) / columns + 0.5
    keys = LEGEND_ROW * rows if plot.keys else 0.0
    height = keys + 0.1 if plot.keys_alone else HEIGHT + keys
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.set_facecolor("none")
    pen = _Pen(axes=figure.add_subplot(), colours=colours)
    _prepare(pen, plot)
    apart = min(APART, ALL_APART / max(1, len(lines)))
    handles = [
        _draw_line(pen, line, plot, shift=(number - (len(lines) - 1) / 2) * apart)
        for number, line in enumerate(lines)
    ]
    if plot.diagonal:
        handles += pen.axes.plot(
            [0, 100], [0, 100], color=colours["muted"], linestyle=(0, (1, 3)), linewidth=1.2
        )
    if plot.keys:
        _legend(figure, handles, labels, columns=columns, colour=colours["ink"])
    if plot.keys_alone:
        pen.axes.remove()
    elif any(line.names for line in lines):
        pen.axes.margins(x=0.08, y=0.16)
        figure.draw_without_rendering()  # settles where points are
        write_names(pen.axes, lines, colour=colours["ink"])
    return figure


def _legend(
    figure: Figure, handles: Sequence[Line2D], labels: Sequence[str], *, columns: int, colour: str
) -> None:
    legend = figure.legend(
        handles,
        [str(number) for number in range(len(handles))],  # it leaves out what begins with "_"
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        labelcolor=colour,
        handlelength=4.2,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)


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
    if plot.bounds is not None:
        axes.set_ylim(*plot.bounds)
    if plot.zero:
        axes.axhline(0, color=colours["muted"], linewidth=1)


def _draw_line(pen: _Pen, line: Line, plot: Plot, *, shift: float) -> Line2D:
    drawn_as = look(line.style)
    colour = pen.colours[drawn_as.colour]
    places = [x + shift for x in line.x] if plot.beside else line.x
    low, high = plot.bounds or (-inf, inf)
    y = [each if low <= each <= high else nan for each in line.y]
    bounded = len(line.low) == len(line.x) > 0 and not plot.keys_alone
    if bounded and line.joined and not line.names and not plot.beside:
        shown = [each == each for each in y]
        if line.style == 0:  # more than one band hides the lines
            pen.axes.fill_between(
                line.x, line.low, line.high, where=shown, color=colour, alpha=0.18, linewidth=0
            )
    elif bounded:
        pairs = zip(line.y, line.low, line.high, strict=True)
        reach = [(max(0.0, y - low), max(0.0, high - y)) for y, low, high in pairs]
        pen.axes.errorbar(
            places,
            y,
            yerr=[list(each) for each in zip(*reach, strict=True)],
            fmt="none",
            color=colour,
            elinewidth=1.2,
            capsize=3,
        )
    [drawn] = pen.axes.plot(
        places,
        y,
        color=colour,
        marker=drawn_as.mark,
        markersize=6 if len(line.x) <= MOST_MARKED else 0,
        linestyle=drawn_as.stroke if line.joined else "none",
        linewidth=drawn_as.width,
        zorder=4 if line.style == 0 else 3,
        clip_on=False,  # a mark on an axis is seen whole
    )
    return drawn


MOST_MARKED = 24
"""Points of a line that has marks; of more they would hide it."""


def _wrapped(label: str, letters: int) -> str:
    """A name on as many rows as it needs; its own line ends would be drawn as such."""
    return "\n".join(wrap(label, letters)) or " "


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
