"""`deliberate eval`: what the latents buy, with controls and intervals.

options --> tasks --one after another--> results --> tables, one JSON object, a report
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deliberate.cli import bench_options, eval_options, options
from deliberate.cli.bench import Asked, run_bench
from deliberate.cli.eval_against import Against
from deliberate.cli.eval_checks import check_costs, check_runs, check_texts
from deliberate.cli.eval_cost import Costs, costs_named
from deliberate.cli.eval_kept import Kept, Place, alone, place, tried, write_file
from deliberate.cli.eval_own import check_own
from deliberate.cli.eval_problems import problems_named
from deliberate.cli.eval_subjects import compared, load_subjects
from deliberate.cli.eval_suites import settled
from deliberate.cli.eval_tasks import (
    BENCH,
    COST,
    PERPLEXITY,
    PROBLEMS,
    Task,
    as_object,
    check_options,
    check_values,
)
from deliberate.cli.eval_texts import texts_named
from deliberate.cli.failures import configuring
from deliberate.cli.models import chosen_device, chosen_dtype, load_base, load_coprocessor
from deliberate.cli.terminal import emit, note

if TYPE_CHECKING:
    from deliberate.core.base import Base
    from deliberate.eval import Subject


def evaluate(
    context: typer.Context,
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's folder, `nano` or a Hub id.")
    ] = options.EMBEDDED,
    others: eval_options.Others = None,
    *,
    data: eval_options.Data = None,
    skip_bad: eval_options.SkipBad = False,
    field: eval_options.Field = None,
    question: eval_options.Question = None,
    answer: eval_options.Answer = None,
    template: eval_options.Template = None,
    separator: eval_options.Separator = None,
    domain: eval_options.Domain = None,
    against: eval_options.Against = None,
    soft: eval_options.Soft = None,
    delay: eval_options.Delay = None,
    base: options.ImpliedBaseName = None,
    texts: eval_options.Texts = None,
    anchors: eval_options.Anchors = None,
    every_token: eval_options.EveryToken = False,
    ahead: Annotated[int, typer.Option(help="Tokens measured after each anchor.")] = 32,
    length: eval_options.Length = None,
    output: eval_options.Report = None,
    resume: eval_options.Resume = False,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    device: options.Device = "auto",
    dtype: options.DtypeName = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
    suite: eval_options.Together = None,
    problems: eval_options.Problems = None,
    steps: eval_options.Steps = None,
    count: eval_options.Count = None,
    shots: eval_options.Shots = None,
    cost: eval_options.Cost = False,
    prompt_tokens: eval_options.PromptTokens = None,
    decoded_tokens: eval_options.DecodedTokens = None,
    repeats: eval_options.Repeats = None,
    bench: bench_options.Bench = None,
    bench_data: bench_options.BenchData = None,
    bench_limit: bench_options.BenchLimit = None,
    run_generated_code: bench_options.RunGeneratedCode = False,
    batch: bench_options.Batch = None,
) -> None:
    """Measure perplexity at tokens 1, 2, 4, 8, 16, 32 and 64 after anchors in held-out text.

    As far as --ahead goes.

    Compares the base alone, the coprocessor's latents, and what --against names: latents that are
    not the right ones, and trained baselines. Each change comes with a 95 % interval from
    resampling texts. A run that learned answers to questions is measured at each question's end, on
    its answer.

    Several runs are measured on the first one's texts, and shown side by side.

    With --bench it asks benchmarks instead, of the base alone and with latents; with --problems it
    asks problems that it makes, or your own; with --cost it measures what latents cost: time,
    FLOPs, memory. --suite quick measures texts, problems and cost together.
    """
    wanted = _wanted(context.params)
    check_options(context, wanted)
    runs, said = [run, *(others or [])], settled(context, suite)
    with configuring():
        check_values(said)
        check_texts(wanted, said)
        check_costs(wanted, said)
        check_own(said)
        versus = compared(runs, said["against"], said["soft"], suite)
        check_runs(runs, versus.baselines.values())

    def load() -> "Base":
        return _load_base(run, base, device, dtype)

    if BENCH in wanted:
        asked = Asked(bench or "", bench_data, bench_limit, run_generated_code, batch, resume)
        run_bench(
            runs, asked, output=output, force=force, as_json=as_json, load=load, typed=context.obj
        )
        return
    where = place(output, runs, wanted, force=force, resume=resume)
    with configuring():
        tasks = _tasks(wanted, runs, said, versus, where)
    model = load()
    with alone(where.folder):
        results, unkept = _measured(tasks, runs, model, where, typed=context.obj)
    if as_json:
        plain = {name: as_object(found, runs) for name, found in results.items()}
        emit(plain if suite else plain[tasks[0].name])
    else:
        for task in tasks:
            if task.name in results:
                task.show(results[task.name], runs, model.id)
    if where == Place() and suite:
        note("nothing was kept: -o FOLDER writes a report")
    if unkept is not None:
        raise unkept


def _wanted(said: Mapping[str, Any]) -> list[str]:
    """The tasks that options name.

    Raises:
        typer.BadParameter: two of them do not go together.
    """
    named = {
        "--suite": [PERPLEXITY, PROBLEMS, COST],
        "--bench": [BENCH],
        "--problems": [PROBLEMS],
        "--cost": [COST],
    }
    given = [option for option in named if said[option.removeprefix("--")] not in (None, False)]
    first, *more = given or [""]
    if not first:
        return [PERPLEXITY]
    if more and (first != "--suite" or "--bench" in more):  # the others are parts of a suite
        raise typer.BadParameter(
            f"{first} and {more[0]} exclude each other: measure one after the other, into one "
            "folder with -o and --resume"
        )
    return named[first]


def _tasks(
    wanted: Sequence[str],
    runs: Sequence[str],
    said: Mapping[str, Any],
    against: Against,
    where: Place,
) -> list[Task]:
    """The tasks, as the command's parameters have them.

    Raises:
        ValueError: one of them is out of range.
    """
    # A suite takes what is for texts to texts, and what is for questions to questions.
    for_texts = replace(against, chains=()) if PROBLEMS in wanted else against
    for_problems = replace(against, every=()) if PERPLEXITY in wanted else against
    tasks: list[Task] = []
    if PERPLEXITY in wanted:
        tasks.append(
            texts_named(said, against=for_texts, run=runs[0], examples=where.folder is not None)
        )
    if PROBLEMS in wanted:
        tasks.append(problems_named(said, against=for_problems, run=runs[0]))
    if COST in wanted:
        tasks.append(Costs(against=against, setting=costs_named(said)))
    return tasks


def _measured(
    tasks: Sequence[Task],
    runs: Sequence[str],
    base: "Base",
    where: Place,
    *,
    typed: Sequence[str],
) -> tuple[dict[str, Any], OSError | None]:
    """What each task came to, by name, and what hindered keeping it, if anything did."""
    from deliberate.core.redaction import command_line
    from deliberate.eval.subject import left_out

    load = cache(lambda name: load_coprocessor(name, base))
    subjects = {task.name: load_subjects(runs, task.against, load) for task in tasks}
    settings = {
        task.name: {**task.settings(), **_surroundings(base, subjects[task.name])}
        for task in (tasks if where.folder is not None else ())
    }
    kept = unkept = None
    if where.folder is not None:
        kept = Kept(
            where.folder,
            base,
            subjects[tasks[0].name],
            command=command_line(typed),
            names=runs,
            resume=where.resume,
        )
    found = {}
    with nullcontext() if kept is None else kept.way_on(settings):
        for task in tasks:
            own = subjects[task.name]
            lacking = {name for each in own if each.lenient for name in left_out(each)}
            if lacking:
                note(f"{task.name}: without {', '.join(sorted(lacking))}, which need more latents")
            measure = partial(task.measure, base, own)
            if kept is None:
                found[task.name] = measure()
            elif task.name == PROBLEMS:  # which are asked of each run by itself
                each = [partial(task.measure, base, [subject]) for subject in own]
                found[task.name] = kept.by_run(task.name, settings[task.name], each)
            else:
                found[task.name] = kept.result(task.name, settings[task.name], measure)
            if where.file is not None:
                whole = {name: as_object(each, runs) for name, each in found.items()}
                result = whole if len(tasks) > 1 else whole[task.name]
                unkept = tried(partial(write_file, where.file, result))
        if kept is not None:
            unkept = tried(kept.finish)
    return found, unkept


def _surroundings(base: "Base", subjects: "Sequence[Subject]") -> dict[str, Any]:
    """What else a result depends on, besides the base and the runs."""
    return {
        "dtype": str(base.model.dtype).removeprefix("torch."),
        "device": str(base.device),
        "baseline_fingerprints": {
            name: trained.fingerprint
            for subject in subjects
            for name, trained in subject.baselines.items()
        },
    }


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
