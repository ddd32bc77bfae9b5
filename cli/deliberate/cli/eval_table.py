"""Tables of `deliberate eval` on a terminal, none broader than eighty columns.

a report --> a column a condition, a row a token --> as many tables as it takes
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

SIDE_BY_SIDE = 4
"""Columns beside the base's that eighty columns have room for."""

NOTHING = "-"
"""Stands where there was nothing to measure."""

Change = Mapping[str, float | None]
"""A change in percent: `value`, `low` and `high`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A condition's perplexities and their changes by token ahead."""

    heading: str
    perplexity: Mapping[str, float | None]
    changes: Mapping[str, Change]


def conditions(result: Mapping[str, Any]) -> list[Column]:
    """A column each condition of a report."""
    from deliberate.core.verdict import columns

    perplexity, changes = result["perplexity"], result["change_percent"]
    return [
        Column(heading=heading, perplexity=perplexity[name], changes=changes[name])
        for name, heading in columns(dict(result)).items()
    ]


def tables(base: Mapping[str, float | None], columns: Sequence[Column]) -> "Iterator[Table]":
    """Each cell is perplexity, its change against the base, and that change's interval.

    Args:
        base: The base's own perplexity by token ahead.
        columns: What to set beside it.

    Yields:
        Tables of a few columns each.
    """
    from rich.text import Text  # a run's or a domain's name is no markup

    alone = {token: perplexity(value) for token, value in base.items()}
    for first in range(0, len(columns), SIDE_BY_SIDE):
        some = columns[first : first + SIDE_BY_SIDE]
        table = empty("token")
        table.add_column("base\nalone", justify="right", min_width=max(map(len, alone.values())))
        cells = [
            [f"{perplexity(column.perplexity[t])}\n{_cell(column.changes[t])}" for t in alone]
            for column in some
        ]
        for column, each in zip(some, cells, strict=True):
            table.add_column(Text(column.heading), justify="right", min_width=_width(each))
        for number, (token, value) in enumerate(alone.items()):
            table.add_row(token, value, *(each[number] for each in cells))
        yield table


def compact(heading: str, rows: Mapping[str, Mapping[str, Change]]) -> "Iterator[Table]":
    """Changes alone, with their intervals: a row each of what is named, a column a token.

    Args:
        heading: What the rows are.
        rows: Changes by token ahead.

    Yields:
        Tables of a few columns each.
    """
    from rich.text import Text

    tokens = list(next(iter(rows.values())))
    for first in range(0, len(tokens), SIDE_BY_SIDE):
        some = tokens[first : first + SIDE_BY_SIDE]
        table = empty(heading)
        cells = {name: [_cell(row[token]) for token in some] for name, row in rows.items()}
        for number, token in enumerate(some):
            width = _width([row[number] for row in cells.values()])
            table.add_column(f"token {token}", justify="right", min_width=width)
        for name, row in cells.items():
            table.add_row(Text(name), *row)
        yield table


def perplexity(value: float | None) -> str:
    """A perplexity in few characters."""
    if value is None:
        return NOTHING
    return f"{value:.3f}" if value < 1e4 else _short(value)


def is_factor(change: Change) -> bool:
    """Whether a change is so large that it is said as how many times the base's perplexity."""
    from deliberate.core.verdict import LARGEST_PERCENT

    known = [each for each in change.values() if each is not None]
    return max(known, default=0.0) > LARGEST_PERCENT


def empty(first: str) -> "Table":
    """A table without rows.

    Args:
        first: Heading of its first column.
    """
    from rich import box
    from rich.table import Table

    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), leading=1
    )
    table.add_column(first, justify="right", min_width=len("token"))
    return table


def _width(cells: Sequence[str]) -> int:
    """Of the longest line, so that the heading is broken and not the interval."""
    return max(len(line) for cell in cells for line in cell.split("\n"))


def _cell(change: Change) -> str:
    value, low, high = (change[name] for name in ("value", "low", "high"))
    if value is None:
        return NOTHING
    said = _factor if is_factor(change) else _signed
    unit = "x {}" if is_factor(change) else "{} %"
    ends = "…".join(NOTHING if each is None else said(each) for each in (low, high))
    return f"{unit.format(said(value))}\n{ends}"


def _signed(percent: float) -> str:
    """With as many places as four conditions leave room for on a narrow terminal."""
    return f"{percent:+.{2 if abs(percent) < 10 else 1 if abs(percent) < 100 else 0}f}"


def _factor(percent: float) -> str:
    return _short(1 + percent / 100)


def _short(value: float) -> str:
    """A number above 0 in at most six characters, up to 1e9."""
    if value >= 1e5:
        return f"{value:.1e}".replace("e+0", "e").replace("e+", "e")
    return f"{value:,.{2 if value < 10 else 1 if value < 100 else 0}f}"
