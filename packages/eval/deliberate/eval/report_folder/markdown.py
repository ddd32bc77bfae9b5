"""A report as Markdown, for a paper or a model card; the plots are files beside it.

Sections --every text escaped--> report.md
"""

import re
from collections.abc import Iterator, Sequence

from deliberate.eval.report_folder.blocks import (
    Block,
    Cell,
    Code,
    Example,
    Examples,
    Figures,
    Plot,
    Said,
    Section,
    Table,
)
from deliberate.eval.report_folder.document import Heading
from deliberate.eval.report_folder.words import shown

SHOWN = 1
"""Examples of each sort; the page has all."""

BEFORE = 300
"""Letters of the text before an example's tokens, of its end."""

SPECIAL = re.compile(r"([\\`*_\[\]<>|#~$!&])")
"""What Markdown, or the HTML within it, would take for its own."""


def markdown(heading: Heading, sections: Sequence[Section]) -> str:
    """The whole file.

    Args:
        heading: What it begins with.
        sections: What it says.
    """
    parts = [f"# {escaped(heading.title)}", escaped(heading.lead)]
    for section in sections:
        parts.append(f"## {escaped(section.heading)}")
        for block in section.blocks:
            parts += _written(block)
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    """A text that is read as it stands, on one line."""
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _written(block: Block) -> Iterator[str]:
    """A block's paragraphs."""
    match block:
        case Said():
            yield (
                f"**{escaped(block.run)}:** {escaped(block.text)}"
                if block.run
                else escaped(block.text)
            )
        case Figures():
            yield "\n".join(
                f"- **{escaped(each.value)}**"
                f"{f' ({escaped(each.interval)})' if each.interval else ''} {escaped(each.label)}"
                for each in block.figures
            )
        case Table():
            yield from _table(block)
        case Plot():
            yield f"![{escaped(block.title)}]({block.name}.png)"
            if block.note:
                yield escaped(block.note)
        case Code():
            yield f"{escaped(block.caption)}:"
            yield _fenced(block.text)
        case Examples():
            yield f"### {escaped(block.heading)}"
            for example in block.examples[:SHOWN]:
                yield from _example(example)
            if len(block.examples) > SHOWN:
                yield f"All {len(block.examples)} are in report.html."


def _table(table: Table) -> Iterator[str]:
    yield f"**{escaped(table.caption)}**"
    lines = [
        _row([escaped(each) for each in table.head]),
        _row(["---", *["---" if table.words else "---:"] * (len(table.head) - 1)]),
        *(_row([_cell(cell) for cell in row]) for row in table.rows),
    ]
    yield "\n".join(lines)
    if table.note:
        yield escaped(table.note)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    text = f"**{escaped(cell.text)}**" if cell.tone else escaped(cell.text)
    return f"{text} ({escaped(cell.interval)})" if cell.interval else text


def _example(example: Example) -> Iterator[str]:
    yield f"{escaped(example.heading)}. Before:"
    cut = len(example.before) > BEFORE
    yield _fenced(f"{'…' if cut else ''}{example.before[-BEFORE:]}")
    cells = [
        [
            Cell(text=shown(token.text)),
            Cell(text=f"{token.base:.3g}"),
            Cell(text=f"{token.latents:.3g}"),
            Cell(text=token.times),
        ]
        for token in example.tokens
    ]
    yield from _table(
        Table(
            caption="The tokens ahead, and how probable each was",
            head=["Token", "Base", "With latents", "Change"],
            rows=cells,
        )
    )


def _fenced(text: str) -> str:
    """A text letter by letter, in a fence that nothing in it can close."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
