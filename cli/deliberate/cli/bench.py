"""`deliberate eval --bench`: benchmarks of the base alone and with latents.

names --questions, then models--> results set by set, a table, records in the output folder
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from deliberate.cli.eval_kept import Kept, alone, tried
from deliberate.cli.eval_names import BENCH_FILE, BENCHMARKS, EMBEDDED_RUNS, REPORT_FILE
from deliberate.cli.eval_tasks import BENCH
from deliberate.cli.failures import configuring
from deliberate.cli.models import load_coprocessor, patient_bars
from deliberate.cli.terminal import emit, note

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from deliberate.core.base import Base
    from deliberate.core.checkpoint import Trained
    from deliberate.eval.bench.run import Results

BATCH = 8


WRITTEN = (BENCH_FILE, REPORT_FILE, *(f"{name}.jsonl" for name in BENCHMARKS))
"""Files of a folder of results."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was said of benchmarks on the command line."""

    names: str
    data: Path | None
    limit: int | None
    run_code: bool
    batch: int | None
    resume: bool


def run_bench(
    runs: Sequence[str],
    asked: Asked,
    *,
    output: Path | None,
    force: bool,
    as_json: bool,
    load: "Callable[[], Base]",
    typed: Sequence[str],
) -> None:
    """Ask benchmarks, show the table, and keep results and records.

    Args:
        runs: The coprocessor's name, and no other.
        asked: Which benchmarks, and how.
        output: Folder of results; by default `bench` in the run's folder, if it has one.
        force: Whether results that are there may be replaced.
        as_json: Whether to print JSON instead of a table.
        load: Loads the base, once all questions are there.
        typed: The whole command, for the report.

    Raises:
        typer.BadParameter: there are several runs, or no benchmark of that name.
    """
    run, *more = runs
    if more:
        raise typer.BadParameter(
            f"--bench asks one RUN at a time, got {' '.join(runs)}: leave out the others, and "
            "compare the two by `deliberate compare`"
        )
    if force and asked.resume:
        raise typer.BadParameter("--force begins anew and --resume goes on: leave out one")
    folder = _folder(run, output, asked.resume, force)

    from deliberate.core.redaction import command_line
    from deliberate.eval.bench.benchmarks import chosen, require_harness

    with configuring():
        benchmarks = chosen(asked.names)
    require_harness(benchmarks)

    from deliberate.eval.bench.run import bench, prepare

    with patient_bars(), alone(folder):
        prepared = prepare(benchmarks, data=asked.data, run_code=asked.run_code)
        for name, reason in prepared.left_out.items():
            note(f"{name}: left out, {reason}")
        if asked.run_code:
            _tell_of_network()
        base = load()
        trained = load_coprocessor(run, base)
        if folder is not None and force:
            _begin_anew(folder)
        kept = _report(folder, base, trained, run, command_line(typed), asked.resume)
        began, done, unkept = time.monotonic(), [], None

        def on_set(name: str, result: dict[str, Any]) -> None:
            done.append(name)
            _tell(name, result)

        with _way_on(folder, done):
            results = bench(
                base,
                trained,
                prepared,
                data=asked.data,
                limit=asked.limit,
                batch=asked.batch or BATCH,
                folder=folder,
                resume=asked.resume,
                on_set=on_set,
                on_note=note,
            )
            if kept is not None:
                spent = time.monotonic() - began
                kept.add(BENCH, results.settings, asdict(results), seconds=spent)
                unkept = tried(kept.finish)
    shown = {name: results.sets[name] for name in prepared.tasks}
    if folder is None:
        note("nothing was kept: -o DIR keeps a record of every answer")
    elif unkept is None:
        note(f"wrote {folder}")
    if as_json:
        emit({**asdict(results), "sets": shown})
    else:
        _show(run, results, shown)
    if unkept is not None:
        raise unkept


@contextmanager
def _way_on(folder: Path | None, done: Sequence[str]) -> Generator[None]:
    """Tell how to go on, if benchmarks are interrupted meanwhile and a folder keeps them.

    Raises:
        KeyboardInterrupt: as it came.
    """
    try:
        yield
    except KeyboardInterrupt:
        if folder is not None:
            note(
                f"interrupted; kept are {', '.join(done)}: go on with the same command and --resume"
                if done
                else "interrupted, and no benchmark was done: give the same command again"
            )
        raise


def _folder(run: str, output: Path | None, resume: bool, force: bool) -> Path | None:
    """Where results go.

    Raises:
        FileExistsError: there are results, and nothing was said of them.
        typer.BadParameter: there is nothing to go on with, or a file is named.
    """
    folder = output
    if folder is None and run not in EMBEDDED_RUNS and Path(run).is_dir():
        folder = Path(run) / "bench"
    if folder is None:
        if resume:
            raise typer.BadParameter("--resume needs the folder of the interrupted run: add -o DIR")
        return None
    if folder.suffix == ".json" and not folder.exists():
        raise typer.BadParameter(
            f"--bench keeps a record of every answer in a folder, and {str(folder)!r} is named "
            "like a file: name a folder with -o"
        )
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{str(folder)!r} is a file: name a folder with -o")
    there = [name for name in WRITTEN if (folder / name).exists()]
    if there and not resume and not force:
        raise FileExistsError(
            f"{str(folder)!r} holds {there[0]}: go on with --resume, add --force to replace it, or "
            "name another folder with -o"
        )
    return folder


def _begin_anew(folder: Path) -> None:
    """Remove the results that are to be made again, once it is known that they can be."""
    for name in WRITTEN:
        (folder / name).unlink(missing_ok=True)


def _report(
    folder: Path | None, base: "Base", trained: "Trained", run: str, command: str, resume: bool
) -> Kept | None:
    """The report that the results go into as well, where what draws it is installed."""
    from deliberate.core.errors import DeliberateError
    from deliberate.eval import Subject
    from deliberate.eval.report_folder import require_report

    if folder is None:
        return None
    try:
        require_report()
    except DeliberateError as error:
        note(f"results without a report: {error}")
        return None
    subjects, resume = [Subject(trained=trained)], resume and (folder / REPORT_FILE).exists()
    return Kept(folder, base, subjects, command=command, names=[run], resume=resume)


def _tell_of_network() -> None:
    from deliberate.eval.bench.sandbox import without_network

    if not without_network():
        note(
            "generated programs can reach the network: this machine gives an ordinary user no "
            "namespaces (docs/benchmarks.md)"
        )


def _tell(name: str, result: dict[str, Any]) -> None:
    """Say what one set came to, as soon as it has."""
    from deliberate.core.verdict import counted

    note(
        f"{name}: {result['base']:.2f} % -> {result['latents']:.2f} %, "
        f"{counted(result['questions'], 'question')}"
    )
    for condition, count in result["cut"].items():
        if count:
            note(
                f"{name}, {condition}: {counted(count, 'prompt')} longer than the base reads lost "
                "the beginning"
            )


def _show(run: str, results: "Results", sets: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console

    settings = results.settings
    limit = settings["limit"]
    few = "" if limit is None else f", at most {limit} questions of each task"
    console = Console()
    console.print(f"{run} for {settings['base']}: benchmarks in percent{few}", style="italic")
    console.print(_table(sets))
    console.print(
        "gained, lost: questions that only the base with latents got right, or only the base "
        "alone. p: McNemar's test on these, exact below 25 of them.",
        style="dim italic",
    )
    say_too_few(console, sets)


def say_too_few(console: "Console", sets: Mapping[str, Mapping[str, Any]]) -> None:
    """Say which sets have so few questions that McNemar's test can never tell a difference."""
    from deliberate.eval.bench.mcnemar import FEWEST_TO_TELL, LEVEL

    few = ", ".join(name for name, each in sets.items() if each["questions"] < FEWEST_TO_TELL)
    if few:
        console.print(
            f"Too few questions to tell a difference: {few}. Of fewer than {FEWEST_TO_TELL}, p is "
            f"never below {LEVEL:g}."
        )


def _table(sets: dict[str, dict[str, Any]]) -> "Table":
    from rich import box
    from rich.table import Table

    # The box parts columns by a space: seventeen sets fit a terminal of eighty columns.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    table.add_column("set", no_wrap=True)
    table.add_column("shots", justify="right")
    table.add_column("score", no_wrap=True)
    for name in ("base", "latents", "change", "asked", "gained", "lost", "p"):
        table.add_column(name, justify="right")
    for name, result in sets.items():
        p = result["p"]
        table.add_row(
            name,
            str(result["shots"]),
            result["score"],
            f"{result['base']:.2f}",
            f"{result['latents']:.2f}",
            f"{result['difference']:+.2f}",
            f"{result['questions']:,}",
            f"{result['gained']:,}",
            f"{result['lost']:,}",
            "<0.001" if p < 0.001 else f"{p:.3f}",
        )
    return table
