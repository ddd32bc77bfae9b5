"""Options of `deliberate eval`: what is measured, on what, against what."""

from pathlib import Path
from typing import Annotated

import typer

from deliberate.cli.eval_names import ALL, CONTROLS, FAMILIES
from deliberate.cli.eval_suites import Suite

Data = Annotated[
    str | None,
    typer.Option(
        help="Held-out texts: a text, JSONL or Parquet file, a folder, `stdlib`, `installed`, "
        "`problems` or a dataset's Hub id.",
        show_default="what the run held out",
    ),
]
SkipBad = Annotated[
    bool,
    typer.Option("--skip-bad", help="Leave files of --data out that cannot be read, and say so."),
]
Field = Annotated[
    str | None,
    typer.Option(
        help="The key or column of the text in files of rows.",
        show_default="text, or pairs as in the run's recipe",
    ),
]
Question = Annotated[
    str | None,
    typer.Option(
        help="The column of questions: one anchor each, at its end. As the next three, also of "
        "the files that --problems names.",
        show_default="the run's; for --problems else question",
    ),
]
Answer = Annotated[
    str | None,
    typer.Option(
        help="The column of answers.", show_default="the run's; for --problems else answer"
    ),
]
Template = Annotated[
    str | None,
    typer.Option(
        help="What is read before the anchor, with {question} in it.", show_default="{question}"
    ),
]
Separator = Annotated[
    str | None,
    typer.Option(help="What an answer begins with.", show_default="a line end"),
]
Soft = Annotated[
    str | None,
    typer.Option(
        help="Another way to say --against soft:RUN, beside the usual controls.",
        show_default="nano's for nano",
    ),
]
Length = Annotated[
    int | None,
    typer.Option(
        help="Most tokens in a passage.",
        show_default="the run's data.length, less where the text is short",
    ),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="PATH",
        help="A folder for a report, or a file that ends in .json.",
        show_default="RUN/eval.json, replaced",
    ),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="Go on with the report or the benchmarks in the folder of -o."),
]
Together = Annotated[
    Suite | None,
    typer.Option(
        help="Measure several things: quick is texts, problems and cost, of a size for minutes "
        "(docs/evaluation.md)."
    ),
]
Texts = Annotated[
    int | None,
    typer.Option(help="Most passages.", show_default="256; 64 with --suite quick"),
]

Against = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help=f"What to compare with: {', '.join(CONTROLS)}, "
        "soft:RUN, pause:RUN, every:TOKENS (latents asked for again), none; for --problems the "
        "base's own chain of thought too: cot, cot:TOKENS, cot:latency. Commas between them.",
        show_default="shuffled,shuffled_but_last",
    ),
]
Others = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN]...", help="More runs for the same base, beside the first."),
]
Anchors = Annotated[
    int | None,
    typer.Option(help="Anchors in each passage.", show_default="32; 16 with --suite quick"),
]
EveryToken = Annotated[
    bool, typer.Option("--every-token", help="An anchor after every token that has room.")
]
Delay = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Tokens decoded before the latents arrive; several as 0,1,2,8.",
        show_default="what the run learned with",
    ),
]
Domain = Annotated[
    str | None,
    typer.Option(
        metavar="COLUMN", help="A column of --data: each of its values is shown by itself too."
    ),
]
Problems = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help=f"Ask made problems instead: {', '.join(FAMILIES)}, or {ALL}; or your own questions "
        "and answers: a JSONL or Parquet file, a folder or a dataset's Hub id.",
    ),
]
Steps = Annotated[
    str | None,
    typer.Option(metavar="STEPS", help="Of made problems: 1-6, 3 or 1,2,4.", show_default="1-6"),
]
Count = Annotated[
    int | None,
    typer.Option(
        help="Problems of each family and number of steps; or the most questions of each file, "
        "drawn by --seed.",
        show_default="100; all of a file",
    ),
]
Shots = Annotated[
    int | None,
    typer.Option(help="Solved problems before each made one.", show_default="0"),
]
Cost = Annotated[
    bool,
    typer.Option("--cost", help="Measure instead what latents cost: time, FLOPs, memory, bytes."),
]
PromptTokens = Annotated[
    int | None,
    typer.Option(
        help="Tokens of the prompt that costs are measured on.",
        show_default="512, or half the base's positions",
    ),
]
DecodedTokens = Annotated[
    int | None,
    typer.Option(help="Tokens decoded after the first, for costs.", show_default="32"),
]
Repeats = Annotated[
    int | None,
    typer.Option(help="Timed turns of what costs are measured on.", show_default="5"),
]
