"""`deliberate eval`: what the latents buy, with controls and intervals."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deliberate.cli import options
from deliberate.cli.failures import configuring
from deliberate.cli.models import (
    chosen_device,
    chosen_dtype,
    load_base,
    load_coprocessor,
    patient_bars,
)
from deliberate.cli.terminal import emit, note, progress

if TYPE_CHECKING:
    from deliberate.eval import Report

_MEANINGS = {
    "latents": "latents",
    "shuffled": "another text's latents",
    "shuffled_but_last": "another text's, all but the last",
    "soft": "soft embedding",
}


def evaluate(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's folder, `nano` or a Hub id.")
    ] = options.EMBEDDED,
    *,
    data: Annotated[
        str | None,
        typer.Option(
            help="Held-out texts: a text or JSONL file, a folder, `stdlib` or `installed`.",
            show_default="what the run held out",
        ),
    ] = None,
    field: Annotated[str, typer.Option(help="The key of the text in JSONL files.")] = "text",
    soft: Annotated[
        str | None,
        typer.Option(
            help="A trained soft embedding to compare with.", show_default="nano's for nano"
        ),
    ] = None,
    base: options.ImpliedBaseName = None,
    texts: Annotated[int, typer.Option(help="Most passages.")] = 256,
    anchors: Annotated[int, typer.Option(help="Anchors in each passage.")] = 32,
    ahead: Annotated[int, typer.Option(help="Tokens after each anchor.")] = 32,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The report.", show_default="RUN/eval.json, replaced"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of passages, anchors and resampling.")] = 0,
    device: options.Device = "auto",
    dtype: options.DtypeName = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
) -> None:
    """Measure perplexity at tokens 1, 2, 4, 8, 16 and 32 after anchors in held-out text.

    Compares the base alone, the coprocessor's latents, another text's latents, and a soft
    embedding if there is one. Each change comes with a 95 % interval from resampling texts.
    """  # noqa: DOC501
    from deliberate.core.atomic import write_bytes
    from deliberate.core.checkpoint import EMBEDDED_FOLDERS, find_coprocessor, read_config
    from deliberate.eval import evaluate as measure

    if output is not None and output.exists() and not force:
        raise FileExistsError(f"{str(output)!r} exists: add --force, or name another file with -o")
    where = chosen_device(device)
    config = read_config(find_coprocessor(run))
    model = load_base(
        base or config["base"]["id"],
        dtype=chosen_dtype(dtype, where),
        device=where,
        revision="" if base else config["base"]["revision"],
        named_by="" if base else run,
    )
    trained = load_coprocessor(run, model)
    if soft is None and run == options.EMBEDDED:
        soft = f"{options.EMBEDDED}-soft"
    baseline = load_coprocessor(soft, model) if soft else None
    with configuring(), patient_bars(), progress("measuring passages", texts) as advance:
        done = [0]

        def count(passages: int, total: int) -> None:
            advance(passages - done[0])
            done[0] = passages

        report = measure(
            model,
            trained,
            soft=baseline,
            data=data,
            field=field,
            texts=texts,
            anchors=anchors,
            ahead=ahead,
            length=config["recipe"].get("data", {}).get("length", 512),
            seed=seed,
            on_passages=count,
        )
    result = report.to_dict()
    if output is None and run not in EMBEDDED_FOLDERS and Path(run).is_dir():
        output = Path(run) / "eval.json"
    if output is not None:
        write_bytes(output, (json.dumps(result, indent=2) + "\n").encode())
        note(f"wrote {output}")
    if as_json:
        emit(result)
    else:
        _show(report, run)


def _show(report: "Report", run: str) -> None:
    from rich.console import Console
    from rich.table import Table

    result = report.to_dict()
    setting, count = result["setting"], result["parameters"]
    table = Table(
        title=f"{run} for {report.base.id}: perplexity by token after the anchor, and its change",
        caption=(
            f"{result['anchors']:,} anchors in {result['passages']} passages of at most "
            f"{result['length']} tokens of {result['documents']} documents of {result['data']}; "
            f"95 % intervals from resampling each {result['resampled']}"
        ),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("token", justify="right")
    table.add_column("base alone", justify="right")
    for name in report.conditions:
        table.add_column(_MEANINGS[name], justify="right")
    changes, perplexity = report.changes(), result["perplexity"]["base"]
    for token, value in perplexity.items():
        row = [changes[name][token] for name in report.conditions]
        cells = [f"{c.value:+.2f} %\n{c.low:+.2f} … {c.high:+.2f}" for c in row]
        table.add_row(token, f"{value:.3f}", *cells)
    console = Console()
    console.print(table)
    console.print(_verdict(report))
    console.print(
        f"{setting['latents']} latents, kind {setting['kind']!r}: "
        f"soft_input {setting['soft_input']}, latent_norm {setting['latent_norm']}, "
        f"latent_scale {setting['latent_scale']:g}, "
        f"positions {setting['positions']}. "
        f"Parameters: {', '.join(f'{name} {value:,}' for name, value in count.items())}.",
        highlight=False,
    )


def _verdict(report: "Report") -> str:
    """Where there is a gain, where a loss, and where neither can be told."""
    changes = report.changes()["latents"]
    kinds = {
        "lower": [t for t, c in changes.items() if c.high < 0],
        "higher": [t for t, c in changes.items() if c.low > 0],
        "not clearly changed": [t for t, c in changes.items() if not c.is_clear],
    }
    parts = [f"{kind} at tokens {', '.join(at)}" for kind, at in kinds.items() if at]
    return f"With latents, perplexity is {'; '.join(parts)}."
