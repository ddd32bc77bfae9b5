"""Benchmarks one after another, the base and then the base with latents on the same questions.

    Benchmarks --prepare--> tasks --base, latents--> records, scores and a paired test, set by set

Source: arXiv:2412.17747, table 2; the paired test is ours.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deliberate.core import plain_json
from deliberate.core.atomic import write_bytes
from deliberate.core.augment import augment, prefill, tokenize
from deliberate.core.base import Base
from deliberate.core.checkpoint import Trained
from deliberate.core.errors import DeliberateError
from deliberate.eval.bench.ask import Answer, ask_within_memory
from deliberate.eval.bench.benchmarks import BENCHMARKS, RESULTS, Benchmark
from deliberate.eval.bench.local import AbsentError
from deliberate.eval.bench.mcnemar import mcnemar
from deliberate.eval.bench.model import LatentLM
from deliberate.eval.bench.records import CONDITIONS, Record, write
from deliberate.eval.bench.tasks import Tasks, quiet, tasks_of

ANSWER_TOKENS = 256
"""Most tokens of an answer where the harness's task does not say."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What can be asked, and what cannot."""

    tasks: dict[str, Tasks]
    """By benchmark."""

    left_out: dict[str, str]
    """By benchmark: why, and what to do."""


@dataclass(kw_only=True)
class Results:
    """What was measured so far; `bench.json` holds it."""

    settings: dict[str, Any]
    """What has to be the same for a run to be gone on with."""

    sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By benchmark."""

    left_out: dict[str, str] = field(default_factory=dict)


def prepare(
    benchmarks: Sequence[Benchmark], *, data: Path | None = None, run_code: bool = False
) -> Prepared:
    """Load the questions of benchmarks, before any model is loaded.

    Args:
        benchmarks: Which.
        data: A folder of local files; none is the Hub.
        run_code: Whether programs that the model writes may be run.

    Raises:
        DeliberateError: a set cannot be read or fetched, or there is nothing to ask.
    """
    if data is not None and not data.is_dir():
        raise DeliberateError(f"{str(data)!r} is no folder: name one that holds benchmarks' files")
    tasks, left_out = {}, {}
    for benchmark in benchmarks:
        if benchmark.runs_code and not run_code:
            left_out[benchmark.name] = (
                "its answers are programs, which run only with --run-generated-code"
            )
            continue
        try:
            tasks[benchmark.name] = tasks_of(benchmark, data)
        except AbsentError as error:
            left_out[benchmark.name] = f"absent: {error}"
    if not tasks:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise DeliberateError(f"there is nothing to ask: {reasons}")
    return Prepared(tasks=tasks, left_out=left_out)


def bench(
    base: Base,
    trained: Trained,
    prepared: Prepared,
    *,
    data: Path | None = None,
    limit: int | None = None,
    batch: int = 8,
    folder: Path | None = None,
    resume: bool = False,
    on_set: Callable[[str, dict[str, Any]], None] = lambda name, result: None,
    on_note: Callable[[str], None] = lambda text: None,
) -> Results:
    """Ask every prepared benchmark of the base and of the base with latents.

    Args:
        base: The frozen model.
        trained: The coprocessor.
        prepared: From `prepare`.
        data: Where `prepared` is from, to be noted.
        limit: Most questions of each of the harness's tasks.
        batch: Texts computed at once; halved where memory lacks.
        folder: Where results and records go, after every set; none keeps nothing.
        resume: Whether sets whose results are in `folder` are left as they are.
        on_set: Told of each set's result.
        on_note: Told of what the user should know.

    Raises:
        DeliberateError: the coprocessor cannot augment a cache, or `folder` holds the results of
            something else.
        OSError: a set's results cannot be kept; `on_set` was told of them.
    """
    augment(base, trained.coprocessor, prefill(base, [tokenize(base, "a")]))  # or say now why not
    results = Results(settings=_settings(base, trained, data, limit), left_out=prepared.left_out)
    if resume and folder is not None:
        results.sets = _earlier(folder, results.settings)
    for name, tasks in prepared.tasks.items():
        if name not in results.sets:
            with quiet():
                models = {
                    "base": LatentLM(base, batch=batch),
                    "latents": LatentLM(base, trained.coprocessor, batch=batch),
                }
            _fit(name, tasks, models["latents"].max_length, on_note)
            answers = {
                condition: ask_within_memory(
                    model, BENCHMARKS[name], tasks, limit=limit, on_note=on_note
                )
                for condition, model in models.items()
            }
            cut = {condition: model.cut for condition, model in models.items()}
            records = _records(BENCHMARKS[name], answers)
            results.sets[name] = _result(BENCHMARKS[name], records) | {"cut": cut}
            try:
                _keep(folder, name, records, results)
            except OSError:  # what took hours to ask is told all the same
                on_set(name, results.sets[name])
                raise
        on_set(name, results.sets[name])
    return results


def _keep(folder: Path | None, name: str, records: Sequence[Record], results: Results) -> None:
    """Write a set's records, and then the results that say it is done."""
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / f"{name}.jsonl", records)
    write_bytes(folder / RESULTS, (json.dumps(asdict(results), indent=2) + "\n").encode())


def _settings(base: Base, trained: Trained, data: Path | None, limit: int | None) -> dict[str, Any]:
    return {
        "base": base.id,
        "base_fingerprint": base.fingerprint,
        "coprocessor": trained.id,
        "coprocessor_fingerprint": trained.fingerprint,
        "dtype": str(base.model.dtype).removeprefix("torch."),
        "data": "Hub" if data is None else str(data.resolve()),
        "limit": limit,
        "harness": version("lm_eval"),
    }


def _earlier(folder: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The sets that an interrupted run had done, where it was a run of the same.

    Raises:
        DeliberateError: it was not; names what differs.
    """
    path = folder / RESULTS
    if not path.exists():
        return {}
    try:
        content = plain_json.read(path, finite=False)
        earlier, sets = dict(content["settings"]), dict(content["sets"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DeliberateError(
            f"cannot read {str(path)!r}: {error!r}; choose another folder with -o"
        ) from error
    for name, value in settings.items():
        if earlier.get(name) != value:
            raise DeliberateError(
                f"{str(folder)!r} holds results with {name} {earlier.get(name)!r} and this run has "
                f"{value!r}: choose another folder with -o"
            )
    own = {name: result for name, result in sets.items() if Path(name).name == name}
    return {name: result for name, result in own.items() if (folder / f"{name}.jsonl").exists()}


def _fit(name: str, tasks: Tasks, length: int, on_note: Callable[[str], None]) -> None:
    """Shorten answers that would take more than half of what the base reads."""
    half = length // 2
    long = [
        task
        for task in tasks.values()
        if task.config.output_type == "generate_until"
        and (task.config.generation_kwargs or {}).get("max_gen_toks", ANSWER_TOKENS) > half
    ]
    for task in long:
        task.set_config(key="generation_kwargs", value={"max_gen_toks": half}, update=True)
    if long:
        on_note(f"{name}: answers of at most {half} tokens, half of what the base reads")


def _records(benchmark: Benchmark, answers: dict[str, dict[str, Answer]]) -> list[Record]:
    right = benchmark.right or benchmark.score
    records = []
    for name, alone in answers["base"].items():
        both = {"base": alone, "latents": answers["latents"][name]}
        records.append(
            Record(
                id=name,
                question=alone.question,
                target=alone.target,
                base=both["base"].scores[right] >= 1,
                latents=both["latents"].scores[right] >= 1,
                answers={condition: one.answer for condition, one in both.items()},
                scores={condition: one.scores for condition, one in both.items()},
            )
        )
    return records


def _result(benchmark: Benchmark, records: Sequence[Record]) -> dict[str, Any]:
    """A set's scores in percent, and the test."""
    test = mcnemar([one.base for one in records], [one.latents for one in records])
    metrics = {
        metric: {condition: _mean(records, condition, metric) for condition in CONDITIONS}
        for metric in records[0].scores["base"]
        if all(metric in one.scores["base"] for one in records)
    }
    by_task: dict[str, list[Record]] = {}
    for one in records:
        by_task.setdefault(one.id.rpartition("/")[0], []).append(one)
    score = metrics[benchmark.score]
    return {
        "shots": benchmark.shots,
        "score": benchmark.score,
        "filter": benchmark.filter,
        "questions": len(records),
        **score,
        "difference": score["latents"] - score["base"],
        "gained": test.gained,
        "lost": test.lost,
        "p": test.p,
        "exact": test.exact,
        "scores": metrics,
        "tasks": {
            name: {
                "questions": len(own),
                **{condition: _mean(own, condition, benchmark.score) for condition in CONDITIONS},
            }
            for name, own in by_task.items()
        },
    }


def _mean(records: Sequence[Record], condition: str, metric: str) -> float:
    return 100 * sum(one.scores[condition][metric] for one in records) / len(records)
