"""The harness's tasks, with our shots and with data from the Hub or from files.

Benchmark --the harness's YAML, data changed--> its tasks, ready to be asked
"""

import fnmatch
import logging
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lm_eval.tasks
from datasets import Dataset, DatasetDict
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.tasks._yaml_loader import load_yaml

from deliberate.core.errors import DeliberateError
from deliberate.core.reach import hub_or_cache
from deliberate.eval.bench import code_tasks, local
from deliberate.eval.bench.benchmarks import Benchmark

HARNESS = Path(lm_eval.tasks.__file__).parent
"""The harness's folder of tasks."""

Tasks = dict[str, ConfigurableTask]
"""A benchmark's tasks by the harness's names."""

_SPLITS = ("training_split", "validation_split", "test_split")


def tasks_of(benchmark: Benchmark, folder: Path | None) -> Tasks:
    """Make a benchmark's tasks.

    Args:
        benchmark: Which.
        folder: Holds the files of benchmarks, as `local.read` has them; none is the Hub.

    Raises:
        AbsentError: the folder has not this benchmark.
        DeliberateError: its data cannot be read or fetched.
    """
    home = HARNESS / benchmark.folder
    manager = TaskManager(include_defaults=False, include_path=[home])
    names = sorted(fnmatch.filter(manager.all_subtasks, benchmark.tasks))
    rows = local.read(folder, benchmark.name, names) if folder else {}
    made = {}
    with quiet(), hub_or_cache() if folder is None else nullcontext():
        for name in names:
            config = load_yaml(
                manager.task_index[name].yaml_path or home, resolve_func=not benchmark.runs_code
            )
            for key in ("tag", "group", "task_alias"):
                config.pop(key, None)
            config |= {"num_fewshot": benchmark.shots, **_changed(benchmark)}
            try:
                if folder:
                    _check_examples(config, rows[name], folder / benchmark.name)
                    config |= _from_rows(config, rows[name])
                made[name] = ConfigurableTask(config=config)
            except (OSError, ValueError) as error:
                raise DeliberateError(_reason(benchmark, folder, error)) from error
    return made


def _reason(benchmark: Benchmark, folder: Path | None, error: Exception) -> str:
    """What a task's failure to load its data comes to."""
    said = " ".join(str(error).split())
    if folder is not None:
        return (
            f"the rows of {str(folder / benchmark.name)!r} do not go together ({said}): give each "
            "field one type (docs/benchmarks.md lists the columns)"
        )
    return (
        f"cannot get {benchmark.name!r} from the Hub ({said}): go online, or give its files with "
        "--bench-data DIR"
    )


@contextmanager
def quiet() -> Generator[None]:
    """While the block runs, the harness keeps its notes for developers to itself.

    The tokenizer does too: that prompts are too long is counted and told once a set.
    """
    loggers = [logging.getLogger(name) for name in ("lm_eval", "transformers")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _changed(benchmark: Benchmark) -> dict[str, Any]:
    """What of the harness's file a benchmark changes besides its data."""
    if benchmark.runs_code:
        return code_tasks.overrides(benchmark.name)
    if benchmark.name == "hellaswag":
        # Rows of local files have no activity, and then no colon after it either.
        return {"doc_to_text": "{{query if activity_label else query[2:]}}"}
    return {}


def _comes_with_examples(config: dict[str, Any]) -> bool:
    return bool((config.get("fewshot_config") or {}).get("samples"))


def _check_examples(config: dict[str, Any], rows: local.Rows, folder: Path) -> None:
    """See that there are questions enough to take examples from.

    Raises:
        DeliberateError: there are not.
    """
    shots, count = config["num_fewshot"], len(rows.questions)
    if not (_comes_with_examples(config) or rows.shots) and shots and count <= shots:
        raise DeliberateError(
            f"{str(folder)!r} has {count} questions, and {shots} examples of others go before "
            "each: give more"
        )


def _from_rows(config: dict[str, Any], rows: local.Rows) -> dict[str, Any]:
    """The part of a task's configuration that makes it read these rows."""
    asked = config.get("test_split") or config["validation_split"]
    fewshot = config.get("fewshot_config") or {}
    splits = {asked: rows.questions}
    changed: dict[str, Any] = dict.fromkeys(_SPLITS) | {"test_split": asked}
    if rows.shots:
        pool = fewshot.get("split") or config.get("fewshot_split") or "train"
        splits[pool] = rows.shots
        changed["fewshot_split"] = pool
    elif not _comes_with_examples(config):
        # Examples are other questions: the harness leaves out the one that is asked.
        changed["fewshot_split"] = asked
    data = DatasetDict({name: Dataset.from_list(found) for name, found in splits.items()})
    return changed | {"custom_dataset": lambda **_: data}
