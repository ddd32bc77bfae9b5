"""One benchmark asked of one model through the harness, question by question.

tasks --requests--> LatentLM --answers, filtered and scored by the harness--> Answers
"""

import io
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate

from deliberate.core.errors import DeliberateError
from deliberate.core.memory import give_back, is_out_of_memory
from deliberate.eval.bench.benchmarks import Benchmark
from deliberate.eval.bench.model import LatentLM
from deliberate.eval.bench.tasks import Tasks, quiet

SHOTS_SEED = 1234
"""The harness's own, of the choice of examples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was answered to one question."""

    question: str
    """Identifies the question."""

    target: str
    answer: Any
    """The number of the option that was chosen, or the text that was scored."""

    scores: dict[str, float]
    """By the harness's metric."""


def ask(
    model: TemplateLM, benchmark: Benchmark, tasks: Tasks, *, limit: int | None = None
) -> dict[str, Answer]:
    """Ask a benchmark's questions.

    Args:
        model: A model of the harness.
        benchmark: Which filter counts.
        tasks: From `tasks_of`.
        limit: Most questions of each task.

    Returns:
        Answers by task and number of the question.
    """
    for task in tasks.values():
        task.set_fewshot_seed(seed=SHOTS_SEED)  # so that every model sees the same examples
    with quiet(), _bars():
        results = evaluate(
            lm=model,
            task_dict={"tasks": dict(tasks)},
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
            confirm_run_unsafe_code=benchmark.runs_code,
        )
    assert results is not None  # there is one process
    return {
        f"{name}/{sample['doc_id']}": _answer(sample, tasks[name], benchmark)
        for name, samples in results["samples"].items()
        for sample in samples
        if sample["filter"] == benchmark.filter
    }


def ask_within_memory(
    model: LatentLM,
    benchmark: Benchmark,
    tasks: Tasks,
    *,
    limit: int | None = None,
    on_note: Callable[[str], None] = lambda text: None,
) -> dict[str, Answer]:
    """Ask, and where the memory is too small, ask again with half the batch.

    Args:
        model: Its batch is lowered for good.
        benchmark: As for `ask`.
        tasks: As for `ask`.
        limit: As for `ask`.
        on_note: Told of a batch that was lowered.

    Raises:
        DeliberateError: a single text is too much.
        MemoryError: never; it becomes the former.
        RuntimeError: something else than memory went wrong.
    """
    while True:
        try:
            return ask(model, benchmark, tasks, limit=limit)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if model.batch_size == 1:
                raise DeliberateError(
                    f"{benchmark.name}: out of memory with a single text: use a smaller base, "
                    "--dtype bfloat16, or another device"
                ) from error
        model.batch_size_per_gpu = model.batch_size // 2
        model.cut = 0
        give_back()
        on_note(f"{benchmark.name}: out of memory, going on with --batch {model.batch_size}")


def _answer(sample: dict[str, Any], task: ConfigurableTask, benchmark: Benchmark) -> Answer:
    # Where the options are contexts, as WinoGrande's are, the harness keeps the right one there.
    target = task.doc_to_text(sample["doc"]) if task.multiple_input else sample["target"]
    scored = sample["filtered_resps"]
    if isinstance(scored[0], tuple):  # log-likelihoods, one an option
        options = [option.removeprefix(" ") for _, option in sample["arguments"]]
        lengths = [len(option) if benchmark.score == "acc_norm" else 1 for option in options]
        values = [score / length for (score, _), length in zip(scored, lengths, strict=True)]
        given = values.index(max(values))
    else:
        given = scored[0][0] if isinstance(scored[0], list) else scored[0]
    return Answer(
        question=sample["doc_hash"][:16],
        target=str(target),
        answer=given,
        scores={name: float(sample[name]) for name in sample["metrics"]},
    )


@contextmanager
def _bars() -> Generator[None]:
    """The harness's bars are for a terminal: elsewhere they are thousands of lines."""
    with nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):
        yield
