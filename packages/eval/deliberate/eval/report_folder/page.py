"""A report as one page of HTML that asks nothing of a network.

Sections --templates, every text escaped--> report.html, its style and its plots within
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from deliberate.eval.report_folder.blocks import (
    Block,
    Code,
    Examples,
    Figures,
    Number,
    Plot,
    Said,
    Section,
    Table,
)
from deliberate.eval.report_folder.document import Heading
from deliberate.eval.report_folder.draw import svg
from deliberate.eval.report_folder.looks import LIGHT
from deliberate.eval.report_folder.words import shown

TEMPLATES: dict[type, str] = {
    Code: "code.html",
    Examples: "examples.html",
    Figures: "figures.html",
    Plot: "plots.html",
    Said: "said.html",
    Table: "table.html",
}
"""How each block is written."""


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("deliberate.eval.report_folder"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    environment.filters["chance"] = chance
    return environment


def page(heading: Heading, sections: Sequence[Section]) -> str:
    """The whole page.

    Args:
        heading: What it begins with.
        sections: What it says.
    """
    environment = _environment()
    source = environment.get_template("report.css").render()
    colours = "".join(f"--{name}:{value};" for name, value in LIGHT.items())
    parts = [(section, Markup("\n").join(_blocks(section.blocks))) for section in sections]
    return environment.get_template("report.html").render(
        heading=heading,
        sections=parts,
        style=Markup(f":root{{{colours}}}\n{source}"),  # ours, and no text of a result's
    )


def _blocks(blocks: Sequence[Block]) -> Iterator[Markup]:
    """Each block's HTML; plots that follow one another go side by side where there is room."""
    for kind, some in groupby(blocks, key=type):
        template = _environment().get_template(TEMPLATES[kind])
        together = list(some)
        if kind is Plot:
            drawn = [(plot, Markup(svg(plot))) for plot in together if isinstance(plot, Plot)]
            yield Markup(template.render(plots=drawn))
        else:
            yield from (Markup(template.render(block=block)) for block in together)


def chance(probability: Number) -> str:
    """A probability in percent, in few characters."""
    percent = 100 * probability
    if 0 < percent < 0.1:
        return "< 0.1 %"
    return f"{percent:.{0 if percent >= 10 else 1}f} %"
