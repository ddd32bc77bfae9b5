"""`deliberate eval`: what the latents buy, with controls and intervals."""

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deliberate.cli import bench_options, options
from deliberate.cli.bench import Asked, run_bench
from deliberate.cli.failures import configuring
from deliberate.cli.models import (
    chosen_device,
    chosen_dtype,
    load_base,
    load_coprocessor,
    patient_bars,
)
from deliberate.cli.terminal import Advance, emit, note, progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from deliberate.core.base import Base
    from deliberate.core.pairs import PairFormat
    from deliberate.eval import Report

LARGEST_PERCENT = 1000
"""A change above this, or whose interval goes above it, is shown as a factor."""

_Data = Annotated[
    str | None,
    typer.Option(
        help="Held-out texts: a text, JSONL or Parquet file, a folder, `stdlib` or `installed`.",
        show_default="what the run held out",
    ),
]
_Field = Annotated[
    str | None,
    typer.Option(
        help="The key or column of the text in files of rows.",
        show_default="text, or pairs as in the run's recipe",
    ),
]
_Question = Annotated[
    str | None,
    typer.Option(
        help="The column of questions: one anchor each, at its end.", show_default="the run's"
    ),
]
_Answer = Annotated[
    str | None, typer.Option(help="The column of answers.", show_default="the run's")
]
_Template = Annotated[
    str | None,
    typer.Option(
        help="What is read before the anchor, with {question} in it.", show_default="{question}"
    ),
]
_Separator = Annotated[
    str | None,
    typer.Option(help="What an answer begins with.", show_default="a line end"),
]
_Soft = Annotated[
    str | None,
    typer.Option(
        help="A trained soft embedding or pause token to compare with.",
        show_default="nano's for nano",
    ),
]
_Length = Annotated[
    int | None,
    typer.Option(
        help="Most tokens in a passage.",
        show_default="the run's data.length, less where the text is short",
    ),
]
_Report = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="The report.", show_default="RUN/eval.json, replaced"),
]


def evaluate(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's folder, `nano` or a Hub id.")
    ] = options.EMBEDDED,
    *,
    data: _Data = None,
    field: _Field = None,
    question: _Question = None,
    answer: _Answer = None,
    template: _Template = None,
    separator: _Separator = None,
    soft: _Soft = None,
    base: options.ImpliedBaseName = None,
    texts: Annotated[int, typer.Option(help="Most passages.")] = 256,
    anchors: Annotated[int, typer.Option(help="Anchors in each passage.")] = 32,
    ahead: Annotated[int, typer.Option(help="Tokens after each anchor.")] = 32,
    length: _Length = None,
    output: _Report = None,
    seed: Annotated[int, typer.Option(help="Of passages, anchors and resampling.")] = 0,
    device: options.Device = "auto",
    dtype: options.DtypeName = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
    bench: bench_options.Bench = None,
    bench_data: bench_options.BenchData = None,
    bench_limit: bench_options.BenchLimit = None,
    run_generated_code: bench_options.RunGeneratedCode = False,
    batch: bench_options.Batch = None,
    resume: bench_options.Resume = False,
) -> None:
    """Measure perplexity at tokens 1, 2, 4, 8, 16 and 32 after anchors in held-out text.

    Compares the base alone, the coprocessor's latents, another text's latents, and the baseline
    that --soft names. Each change comes with a 95 % interval from resampling texts. A run that
    learned answers to questions is measured at each question's end, on its answer.

    With --bench it asks benchmarks instead, of the base alone and with latents.
    """  # noqa: DOC501
    from deliberate.core.checkpoint import EMBEDDED_FOLDERS
    from deliberate.eval import Sample
    from deliberate.eval import evaluate as measure

    asked = Asked(bench, bench_data, bench_limit, run_generated_code, batch, resume)
    if asked.wanted:
        run_bench(
            run,
            asked,
            output=output,
            force=force,
            as_json=as_json,
            load=lambda: _load_base(run, base, device, dtype),
        )
        return
    if output is not None and output.exists() and not force:
        raise FileExistsError(f"{str(output)!r} exists: add --force, or name another file with -o")
    with configuring():
        sample = Sample(texts=texts, anchors=anchors, ahead=ahead, length=length, seed=seed)
        pairs = _pairs(field, question, answer, template, separator)
    model = _load_base(run, base, device, dtype)
    trained = load_coprocessor(run, model)
    if soft is None and run == options.EMBEDDED:
        soft = f"{options.EMBEDDED}-soft"
    baseline = load_coprocessor(soft, model) if soft else None
    with patient_bars(), progress("measuring passages", None) as advance:
        count = _counting(advance)
        report = measure(
            model,
            trained,
            soft=baseline,
            data=data,
            field=field,
            pairs=pairs,
            sample=sample,
            on_passages=count,
        )
    if output is None and run not in EMBEDDED_FOLDERS and Path(run).is_dir():
        output = Path(run) / "eval.json"
    _tell(report, output)
    emit(report.to_dict()) if as_json else _show(report, run)


def _pairs(
    field: str | None,
    question: str | None,
    answer: str | None,
    template: str | None,
    separator: str | None,
) -> "PairFormat | None":
    """The columns of questions and answers, if they are named.

    Raises:
        ValueError: one is named without the other, or with `field`.
    """
    from deliberate.core.pairs import PairFormat

    stated = {"question": question, "answer": answer, "template": template, "separator": separator}
    named = [name for name, value in stated.items() if value is not None]
    if not named:
        return None
    if question is None or answer is None or field is not None:
        odd = ", ".join(f"--{name}" for name in [*named, *(["field"] if field else [])])
        raise ValueError(
            f"--question and --answer go together, and without --field, got {odd}: name both "
            "columns, or leave out what goes with them"
        )
    return PairFormat.of(stated)


def _load_base(run: str, base: str | None, device: str, dtype: options.Dtype | None) -> "Base":
    """The base that was named, or the one that the run names."""
    from deliberate.core.checkpoint import find_coprocessor, read_config

    where = chosen_device(device)
    stated = read_config(find_coprocessor(run))["base"]
    return load_base(
        base or stated["id"],
        dtype=chosen_dtype(dtype, where),
        device=where,
        revision="" if base else stated["revision"],
        named_by="" if base else run,
    )


def _counting(advance: Advance) -> Callable[[int, int], None]:
    """Moves the bar on by how many more passages are done."""
    before = 0

    def count(done: int, total: int) -> None:
        nonlocal before
        advance(done - before, total=total)
        before = done

    return count


def _tell(report: "Report", output: Path | None) -> None:
    """Write the report, and say what the user did not ask for."""
    from deliberate.core.atomic import write_bytes

    drawn = report.drawn
    if drawn.length < drawn.length_wanted:
        note(
            f"few passages of {drawn.length_wanted} tokens in {drawn.source}: cut to at most "
            f"{drawn.length} tokens (--length chooses)"
        )
    if drawn.left_out:
        note(
            f"{drawn.left_out:,} pairs of {drawn.source} left out: they do not fit {drawn.length} "
            "tokens (--length chooses)"
        )
    if output is not None:
        write_bytes(output, (json.dumps(report.to_dict(), indent=2) + "\n").encode())
        note(f"wrote {output}")


def _show(report: "Report", run: str) -> None:
    from rich.console import Console

    from deliberate.core.verdict import verdict, writes_latents

    result = report.to_dict()
    setting = result["setting"]
    console = Console()
    title = f"{run} for {report.base.id}: perplexity by token after the anchor"
    _say(console, title, style="italic")
    console.print(_table(result))
    _say(console, _caption(result), style="dim italic")
    _say(console, verdict(result))
    settings = (
        f"{_counted(setting['latents'], 'latent')}, kind {setting['kind']!r}: "
        f"soft_input {setting['soft_input']}, latent_norm {setting['latent_norm']}, "
        f"latent_scale {setting['latent_scale']:g}, positions {setting['positions']}."
    )
    _say(console, settings if writes_latents(result) else f"No latents, kind {setting['kind']!r}.")
    counts = ", ".join(f"{name} {count:,}" for name, count in result["parameters"].items())
    prints = ", ".join(f"{name} {value}" for name, value in result["fingerprints"].items())
    _say(console, f"Parameters: {counts}.")
    _say(console, f"Fingerprints: {prints}.")


def _say(console: "Console", text: str, *, style: str = "") -> None:
    """Print a paragraph without the spaces that rich leaves at the ends of lines."""
    lines = textwrap.wrap(text, console.width, break_long_words=False, break_on_hyphens=False)
    for line in lines:
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def _table(result: dict[str, Any]) -> "Table":
    """A column a condition; each cell is perplexity, its change, and that change's interval."""
    from rich import box
    from rich.table import Table

    from deliberate.core.verdict import columns

    present = columns(result)
    perplexity, changes = result["perplexity"], result["change_percent"]
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), leading=1
    )
    base = {token: _perplexity(alone) for token, alone in perplexity["base"].items()}
    table.add_column("token", justify="right", min_width=len("token"))
    table.add_column("base\nalone", justify="right", min_width=max(map(len, base.values())))
    cells = {
        name: {token: _cell(perplexity[name][token], changes[name][token]) for token in base}
        for name in present
    }
    for name, heading in present.items():
        # So that the heading is broken and not the interval.
        width = max(len(line) for cell in cells[name].values() for line in cell.split("\n"))
        table.add_column(heading, justify="right", min_width=width)
    for token, alone in base.items():
        table.add_row(token, alone, *(cells[name][token] for name in present))
    return table


def _cell(value: float, change: dict[str, float]) -> str:
    said = _factor if _is_factor(change) else _signed
    unit = "x {}" if _is_factor(change) else "{} %"
    interval = f"{said(change['low'])}…{said(change['high'])}"
    return f"{_perplexity(value)}\n{unit.format(said(change['value']))}\n{interval}"


def _is_factor(change: dict[str, float]) -> bool:
    """Whether a change is so large that it is said as how many times the base's perplexity."""
    return max(change.values()) > LARGEST_PERCENT


def _perplexity(value: float) -> str:
    return f"{value:.3f}" if value < 1e4 else _short(value)


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


def _caption(result: dict[str, Any]) -> str:
    passage = (
        "; another passage's latents, for lack of other texts to take them from"
        if result["shuffled_from"] == "passage"
        else ""
    )
    cells = [change for row in result["change_percent"].values() for change in row.values()]
    factor = "x: times the base's perplexity. " if any(map(_is_factor, cells)) else ""
    return (
        f"Each cell: perplexity, its change, and the change's 95 % interval from resampling each "
        f"{result['resampled']}. {factor}{_counted(result['anchors'], 'anchor')} in "
        f"{_counted(result['passages'], 'passage')} of at most {result['length']} tokens, "
        f"{_counted(result['documents'], 'document')} of {result['data']}{passage}"
    )


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
