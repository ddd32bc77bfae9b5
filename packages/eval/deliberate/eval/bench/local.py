"""Benchmarks from files on this machine: `DIR/NAME/...`, as docs/benchmarks.md lists them.

DIR --one layout a benchmark--> files of each task --rows, conformed--> questions and shots
"""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deliberate.core.errors import DeliberateError
from deliberate.eval.bench.columns import COLUMNS, Row, conform

_CHINESE = ("gaokao", "jec", "logiqa-zh")
_CLOZE = ("gaokao-mathcloze", "math")
_MBPP_TEST = range(11, 511)  # the data set's own parts, by task_id
_MBPP_PROMPT = range(2, 5)  # the three that its authors show as examples


class AbsentError(DeliberateError):
    """A benchmark's files are not there; the others can go on without it."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One task's rows, with the columns that the harness reads."""

    questions: list[Row]
    """Those that are asked."""

    shots: list[Row] = field(default_factory=list)
    """Those that examples are taken from; without any, examples are other questions."""


def read(folder: Path, benchmark: str, tasks: list[str]) -> dict[str, Rows]:
    """Read a benchmark's files.

    Args:
        folder: Holds a folder of each benchmark.
        benchmark: Its name.
        tasks: The harness's tasks that it is made of.

    Raises:
        AbsentError: a file is missing; names it.
        DeliberateError: a file cannot be read or has other columns; names the file and the field.
    """
    layout = {"mmlu": _mmlu, "agieval": _agieval, "bbh": _bbh, "math": _math, "mbpp": _mbpp}
    home = folder / benchmark
    return {task: layout.get(benchmark, _plain)(home, task, benchmark) for task in tasks}


def _plain(home: Path, _task: str, benchmark: str) -> Rows:
    """One file of questions, and maybe one of examples."""
    names = {
        "arc_easy": ("arc_easy.jsonl", "test.jsonl"),
        "arc_challenge": ("arc_challenge.jsonl", "test.jsonl"),
        "gsm8k": ("test.jsonl",),
        "humaneval": ("HumanEval.jsonl", "test.jsonl"),
        "nq_open": ("NQ-open.dev.jsonl", "validation.jsonl"),
        "siqa": ("validation.json", "validation.jsonl"),
        "triviaqa": ("subset.jsonl", "validation.jsonl"),
    }.get(benchmark, ("validation.jsonl",))
    questions = _conformed(_first(home, names), benchmark)
    # GSM8K's examples come with the harness's task, and its file of training is for training.
    shots = home / "train.jsonl"
    if benchmark in {"drop", "triviaqa", "nq_open"} and shots.exists():
        return Rows(questions=questions, shots=_conformed(shots, benchmark))
    return Rows(questions=questions)


def _mmlu(home: Path, task: str, benchmark: str) -> Rows:
    subject = task.removeprefix("mmlu_")
    return Rows(
        questions=_conformed(home / "test" / f"{subject}_test.csv", benchmark),
        shots=_conformed(home / "dev" / f"{subject}_dev.csv", benchmark),
    )


def _agieval(home: Path, task: str, benchmark: str) -> Rows:
    name = task.removeprefix("agieval_").replace("_", "-")
    kind = "agieval_cloze" if name in _CLOZE else benchmark
    chinese = name.startswith(_CHINESE) and name != "gaokao-english"
    more = {"language": "chinese" if chinese else "english"}
    return Rows(questions=_conformed(home / f"{name}.jsonl", kind, **more))


def _bbh(home: Path, task: str, benchmark: str) -> Rows:
    name = task.removeprefix("bbh_cot_fewshot_")
    return Rows(questions=_conformed(home / f"{name}.json", benchmark))


def _math(home: Path, task: str, benchmark: str) -> Rows:
    """One file of all subjects, under the names that the Hub's parts have.

    Raises:
        DeliberateError: it has none of a subject.
    """
    shortened = {
        "counting_and_prob": "counting_and_probability",
        "num_theory": "number_theory",
        "precalc": "precalculus",
    }
    subject = task.removeprefix("minerva_math_")
    subject = shortened.get(subject, subject)
    path = home / "test.jsonl"
    rows = [row for row in _rows(path) if _field(row, "category", path) == subject]
    if not rows:
        raise DeliberateError(f"{str(path)!r} has no row of category {subject!r}")
    return Rows(questions=[_row(row, benchmark, path, at) for at, row in enumerate(rows, 1)])


def _mbpp(home: Path, _task: str, benchmark: str) -> Rows:
    rows = _conformed(_first(home, ("mbpp.jsonl", "test.jsonl")), benchmark)
    return Rows(
        questions=[row for row in rows if row["task_id"] in _MBPP_TEST],
        shots=[row for row in rows if row["task_id"] in _MBPP_PROMPT],
    )


def _first(home: Path, names: tuple[str, ...]) -> Path:
    """The first of a folder's files that is there, or the first of them."""
    paths = [home / name for name in names]
    return next((path for path in paths if path.exists()), paths[0])


def _conformed(path: Path, kind: str, **more: str) -> list[Row]:
    found = [_row({**row, **more}, kind, path, at) for at, row in enumerate(_rows(path), 1)]
    if not found:
        raise DeliberateError(f"{str(path)!r} holds no questions: get the file again")
    return found


def _row(row: dict[str, Any], kind: str, path: Path, at: int) -> Row:
    try:
        return conform(row, COLUMNS[kind])
    except (ValueError, TypeError, IndexError) as error:
        raise DeliberateError(
            f"row {at} of {str(path)!r}: {error} (docs/benchmarks.md lists the columns)"
        ) from error


def _field(row: dict[str, Any], name: str, path: Path) -> Any:
    if name not in row:
        raise DeliberateError(
            f"{str(path)!r} has a row without field {name!r} (docs/benchmarks.md lists the columns)"
        )
    return row[name]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL, JSON or CSV file.

    Raises:
        AbsentError: it is not there.
        DeliberateError: it cannot be read.
    """
    if not path.is_file():
        raise AbsentError(f"there is no {str(path)!r}")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if path.suffix == ".csv":
                yield from map(_mmlu_row, csv.reader(file))
                return
            text = file.read()
        if path.suffix == ".json":
            content = json.loads(text)
            rows = content["examples"] if isinstance(content, dict) else content
        else:
            # Not splitlines: that breaks at characters which JSON allows in a text.
            rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise DeliberateError(f"cannot read {str(path)!r}: {error}; get the file again") from error
    if not isinstance(rows, list):
        raise DeliberateError(f"{str(path)!r} holds a {type(rows).__name__} and not rows")
    for row in rows:
        if not isinstance(row, dict):
            raise DeliberateError(f"{str(path)!r} holds a {type(row).__name__} and not rows")
        yield row


def _mmlu_row(cells: list[str]) -> dict[str, Any]:
    """MMLU's own files have no header: question, four options, and the letter of the right one.

    Raises:
        ValueError: it is no such row.
    """
    if len(cells) != 6 or cells[5] not in tuple("ABCD"):
        raise ValueError(f"a row has {len(cells)} columns where question, A, B, C, D, answer are")
    return {"question": cells[0], "choices": cells[1:5], "answer": "ABCD".index(cells[5])}
