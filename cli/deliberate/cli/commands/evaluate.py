"""`deliberate eval`: what the latents buy, with controls and intervals."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deliberate.cli import bench_options, eval_options, options
from deliberate.cli.bench import Asked, run_bench
from deliberate.cli.eval_problems import Problems, answered, show_problems
from deliberate.cli.eval_shown import show, show_together
from deliberate.cli.eval_subjects import compared, load_subjects
from deliberate.cli.failures import configuring
from deliberate.cli.models import chosen_device, chosen_dtype, load_base, patient_bars
from deliberate.cli.terminal import Advance, emit, note, progress

if TYPE_CHECKING:
    from deliberate.core.base import Base
    from deliberate.core.pairs import PairFormat
    from deliberate.eval import Report
    from deliberate.eval.accuracy import Accuracy


def evaluate(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run's folder, `nano` or a Hub id.")
    ] = options.EMBEDDED,
    others: eval_options.Others = None,
    *,
    data: eval_options.Data = None,
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
    texts: Annotated[int, typer.Option(help="Most passages.")] = 256,
    anchors: eval_options.Anchors = None,
    every_token: eval_options.EveryToken = False,
    ahead: Annotated[int, typer.Option(help="Tokens after each anchor.")] = 32,
    length: eval_options.Length = None,
    output: eval_options.Report = None,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
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
    problems: eval_options.Problems = None,
    steps: eval_options.Steps = None,
    count: eval_options.Count = None,
) -> None:
    """Measure perplexity at tokens 1, 2, 4, 8, 16 and 32 after anchors in held-out text.

    Compares the base alone, the coprocessor's latents, and what --against names: latents that are
    not the right ones, and trained baselines. Each change comes with a 95 % interval from
    resampling texts. A run that learned answers to questions is measured at each question's end, on
    its answer.

    Several runs are measured on the first one's texts, and shown side by side.

    With --bench it asks benchmarks instead, of the base alone and with latents; with --problems it
    asks problems that it makes.
    """  # noqa: DOC501
    from deliberate.eval import Sample, evaluate_together

    runs, made = [run, *(others or [])], Problems(problems, steps, count)
    with configuring():
        texts_only = {"--bench": bench, "--data": data, "--question": question, "--domain": domain}
        made.check_alone({**texts_only, "--delay": delay is not None, "--every-token": every_token})
    asked = Asked(bench, bench_data, bench_limit, run_generated_code, batch, resume)
    if asked.wanted:
        if others:
            raise typer.BadParameter(
                f"--bench asks one RUN at a time, got {' '.join([run, *others])}: "
                "leave out the others, and compare the two by `deliberate compare`"
            )
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
        chosen = made.chosen(seed) if made.wanted else None
        sample = Sample(
            texts=texts,
            anchors=_anchors(anchors, every_token=every_token),
            ahead=ahead,
            length=length,
            delays=_own_delay(run) if delay is None else _delays(delay),
            seed=seed,
        )
        pairs = _pairs(field, question, answer, template, separator)
        others_than = compared(runs, against, soft, None if made.wanted else sample)
    model = _load_base(run, base, device, dtype)
    subjects = load_subjects(runs, others_than, model)
    if chosen is not None:
        found = answered(model, subjects, chosen)
        _keep(found, runs, output, name="problems.json")
        if as_json:
            emit(_result(found, runs))
            return
        for accuracy, each in zip(found, runs, strict=True):
            show_problems(accuracy, each)
        return
    with patient_bars(), progress("measuring passages", None) as advance:
        reports = evaluate_together(
            model,
            subjects,
            data=data,
            field=field,
            pairs=pairs,
            domain=domain,
            sample=sample,
            on_passages=_counting(advance),
        )
    _tell(reports[0])
    _keep(reports, runs, output, name="eval.json")
    if as_json:
        emit(_result(reports, runs))
    elif others:
        show_together(reports, runs)
    else:
        show(reports[0], run)


def _anchors(anchors: int | None, *, every_token: bool) -> int | None:
    """How many in each passage; none is after every token.

    Raises:
        ValueError: both are asked for.
    """
    if anchors is not None and every_token:
        raise ValueError(f"--every-token and --anchors {anchors} exclude each other: leave out one")
    return None if every_token else 32 if anchors is None else anchors


def _own_delay(run: str) -> tuple[int, ...]:
    """The delay that a run learned with, by which its own validations go."""
    from deliberate.core.checkpoint import find_coprocessor, read_config

    recipe = read_config(find_coprocessor(run)).get("recipe") or {}
    return (recipe.get("objective", {}).get("delay", 0),)


def _delays(named: str) -> tuple[int, ...]:
    """Numbers with commas between them.

    Raises:
        ValueError: one of them is none.
    """
    try:
        return tuple(int(each) for each in named.split(","))
    except ValueError as error:
        raise ValueError(
            f"delay must be a number of tokens, or several as 0,1,2,8, got {named!r}"
        ) from error


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


def _tell(report: "Report") -> None:
    """Say what the user did not ask for."""
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


def _result(reports: "Sequence[Report | Accuracy]", runs: Sequence[str]) -> dict[str, Any]:
    """What `--json` prints: one run's report, or a list of several runs' own."""
    if len(runs) == 1:
        return reports[0].to_dict()
    return {
        "results": [
            {"run": run, **report.to_dict()} for run, report in zip(runs, reports, strict=True)
        ]
    }


def _keep(
    reports: "Sequence[Report | Accuracy]", runs: Sequence[str], output: Path | None, *, name: str
) -> None:
    """Write the report: with its run if there is one, several only where they were asked for."""
    from deliberate.core.atomic import write_bytes
    from deliberate.core.checkpoint import EMBEDDED_FOLDERS

    run, *more = runs
    if output is None and not more and run not in EMBEDDED_FOLDERS and Path(run).is_dir():
        output = Path(run) / name
    if output is not None:
        write_bytes(output, (json.dumps(_result(reports, runs), indent=2) + "\n").encode())
        note(f"wrote {output}")
