"""Options of `deliberate eval` for benchmarks."""

from pathlib import Path
from typing import Annotated

import typer

Bench = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Benchmarks to ask instead: `paper`, or names such as gsm8k,mmlu.",
    ),
]
BenchData = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Their files on this machine (docs/benchmarks.md).",
        show_default="the Hub",
    ),
]
BenchLimit = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Most questions of each task; MMLU has 57 tasks.",
        show_default="all",
    ),
]
RunGeneratedCode = Annotated[
    bool,
    typer.Option(
        "--run-generated-code",
        help="Ask mbpp and humaneval too: runs programs that the model writes.",
    ),
]
Batch = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Texts computed at once; halved where memory lacks.",
        show_default="8",
    ),
]
