"""`deliberate compare`: two runs of benchmarks, question by question.

two files, or folders --records of the same benchmarks--> McNemar's test for each
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deliberate.cli import options
from deliberate.cli.bench import say_too_few
from deliberate.cli.terminal import emit, note

if TYPE_CHECKING:
    from rich.table import Table


class Condition(StrEnum):
    """Whose answers are compared."""

    BASE = "base"
    LATENTS = "latents"


def compare(
    first: Annotated[
        Path,
        typer.Argument(
            metavar="A",
            help="Of `deliberate eval --bench`: its folder, its results.json, or NAME.jsonl there.",
        ),
    ],
    second: Annotated[Path, typer.Argument(metavar="B", help="The same of another run.")],
    *,
    of: Annotated[
        Condition, typer.Option(help="Whose answers: the base's, or its answers with latents.")
    ] = Condition.LATENTS,
    as_json: options.AsJson = False,
) -> None:
    """Compare two runs of the same benchmarks, question by question, with McNemar's test.

    Of two folders, each benchmark that both have records of.
    """
    from deliberate.eval.bench.records import compare as compare_records
    from deliberate.eval.bench.records import shared

    pairs, alone = shared(first, second)
    if alone:
        note(f"without {', '.join(alone)}, which only one of the two has")
    found = {
        name: compare_records(*files, condition=of.value).to_dict() for name, files in pairs.items()
    }
    if as_json:
        emit(found.get("", {"sets": found}))
    elif "" in found:
        _say(found[""], of)
    else:
        _show(found, of)


def _say(result: Mapping[str, Any], of: Condition) -> None:
    """Say in sentences what two files came to."""
    typer.echo(
        f"{result['questions']:,} questions, right with {of.value}: {result['first']:.2f} % -> "
        f"{result['second']:.2f} % ({result['difference']:+.2f})"
    )
    how = "exact" if result["exact"] else "chi-square, continuity corrected"
    typer.echo(
        f"only the second right: {result['gained']:,}; only the first: {result['lost']:,}; "
        f"McNemar's p = {result['p']:.3g} ({how})"
    )
    from deliberate.eval.bench.mcnemar import FEWEST_TO_TELL, LEVEL

    if result["questions"] < FEWEST_TO_TELL:
        typer.echo(
            f"too few questions to tell: of fewer than {FEWEST_TO_TELL}, p is never below {LEVEL:g}"
        )


def _show(found: Mapping[str, Mapping[str, Any]], of: Condition) -> None:
    """Show what folders came to, a line for each benchmark."""
    from rich.console import Console

    console = Console()
    console.print(f"right with {of.value}, in percent: the first run, the second", style="italic")
    console.print(_table(found))
    console.print(
        "gained, lost: questions that only the second or only the first got right. p: McNemar's "
        "test on these, exact below 25 of them.",
        style="dim italic",
    )
    say_too_few(console, found)


def _table(found: Mapping[str, Mapping[str, Any]]) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    table.add_column("set", no_wrap=True)
    for name in ("first", "second", "change", "asked", "gained", "lost", "p"):
        table.add_column(name, justify="right")
    for name, result in found.items():
        table.add_row(
            name,
            f"{result['first']:.2f}",
            f"{result['second']:.2f}",
            f"{result['difference']:+.2f}",
            f"{result['questions']:,}",
            f"{result['gained']:,}",
            f"{result['lost']:,}",
            "<0.001" if result["p"] < 0.001 else f"{result['p']:.3f}",
        )
    return table
