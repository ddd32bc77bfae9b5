"""`deliberate compare`: two runs of a benchmark, question by question."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from deliberate.cli import options
from deliberate.cli.terminal import emit


class Condition(StrEnum):
    """Whose answers are compared."""

    BASE = "base"
    LATENTS = "latents"


def compare(
    first: Annotated[
        Path, typer.Argument(metavar="A.jsonl", help="Records of `deliberate eval --bench`.")
    ],
    second: Annotated[Path, typer.Argument(metavar="B.jsonl", help="Those of another run.")],
    *,
    of: Annotated[
        Condition, typer.Option(help="Whose answers: the base's, or its answers with latents.")
    ] = Condition.LATENTS,
    as_json: options.AsJson = False,
) -> None:
    """Compare two runs of one benchmark on the same questions, with McNemar's test."""
    from deliberate.eval.bench.records import compare as compare_records

    result = compare_records(first, second, condition=of.value).to_dict()
    if as_json:
        emit(result)
        return
    typer.echo(
        f"{result['questions']:,} questions, right with {of.value}: {result['first']:.2f} % -> "
        f"{result['second']:.2f} % ({result['difference']:+.2f})"
    )
    how = "exact" if result["exact"] else "chi-square, continuity corrected"
    typer.echo(
        f"only the second right: {result['gained']:,}; only the first: {result['lost']:,}; "
        f"McNemar's p = {result['p']:.3g} ({how})"
    )
