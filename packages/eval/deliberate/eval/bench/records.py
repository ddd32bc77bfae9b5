"""Each question's outcome as a line of JSON, so that runs can be compared later.

answers of base and latents --> NAME.jsonl --two of them--> the same questions? then McNemar
                        a folder of these --each set that both have--^
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deliberate.core import plain_file, plain_json
from deliberate.core.atomic import write_bytes
from deliberate.core.errors import DeliberateError
from deliberate.eval.bench.benchmarks import BENCHMARKS, RESULTS
from deliberate.eval.bench.mcnemar import McNemar, mcnemar

BESIDE = (RESULTS, "results.json")
"""Files that say what the records beside them came to."""

CONDITIONS = ("base", "latents")
"""Who answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One question and its two answers."""

    id: str
    """The harness's task and the number of the question in it."""

    question: str
    """Identifies the question's text and its right answers."""

    target: str
    """The right answer, as the harness has it."""

    base: bool
    """Whether the base was right."""

    latents: bool
    """Whether the base with latents was."""

    answers: dict[str, Any]
    """By condition: the number of the option that was chosen, or the text that was scored."""

    scores: dict[str, dict[str, float]]
    """By condition: every metric of the harness's task."""


def write(path: Path, records: Sequence[Record]) -> None:
    """Write records, the whole file or nothing."""
    lines = (json.dumps(asdict(record), ensure_ascii=False) for record in records)
    write_bytes(path, ("\n".join(lines) + "\n").encode())


def read(path: Path) -> list[Record]:
    """Read records.

    Raises:
        DeliberateError: the file holds something else; names the line.
    """
    records = []
    for number, line in enumerate(_content(path).split(b"\n"), 1):
        if not line:
            continue
        try:
            record = _record(plain_json.parse(line, finite=False))
        except (TypeError, ValueError) as error:
            raise DeliberateError(
                f"line {number} of {str(path)!r} is no record of a question: name a file that "
                "`deliberate eval --bench` wrote"
            ) from error
        records.append(record)
    if not records:
        raise DeliberateError(f"{str(path)!r} holds no records: name another file")
    return records


def shared(first: Path, second: Path) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """The files of records to be compared.

    Args:
        first: A file of records, a folder of them, or a file of `BESIDE` in such a folder.
        second: Another.

    Returns:
        Pairs by benchmark, or by "" if both are files, whatever they are called; and the benchmarks
        that only one of the two has.

    Raises:
        DeliberateError: one of them has no records, or they have no benchmark in common.
        OSError: there is nothing of that name.
    """
    one, two = _sets(first), _sets(second)
    if isinstance(one, Path) and isinstance(two, Path):
        return {"": (one, two)}, []
    one, two = ({each.stem: each} if isinstance(each, Path) else each for each in (one, two))
    both = {name: (one[name], two[name]) for name in one if name in two}
    if not both:
        raise DeliberateError(
            f"{str(first)!r} has records of {', '.join(one)} and {str(second)!r} of "
            f"{', '.join(two)}: compare two that have a benchmark in common"
        )
    return both, [name for name in {**one, **two} if name not in both]


def _sets(path: Path) -> Path | dict[str, Path]:
    """A file of records, or those of a folder by benchmark.

    Raises:
        DeliberateError: there are none.
        OSError: there is nothing of that name.
    """
    path.stat()
    if not path.is_dir() and path.suffix != ".json":
        return path
    if path.is_dir() or path.name in BESIDE:
        folder = path if path.is_dir() else path.parent
        for place in (folder, folder / "bench"):  # the second is a run's own
            files = {name: place / f"{name}.jsonl" for name in BENCHMARKS}
            found = {name: file for name, file in files.items() if file.is_file()}
            if found:
                return found
    raise DeliberateError(
        f"{str(path)!r} has no record of each question: `deliberate eval RUN --bench NAMES -o "
        "FOLDER` writes them there as FOLDER/NAME.jsonl, and problems are kept as sums alone: "
        "name such a folder or file"
    )


def _content(path: Path) -> bytes:
    with plain_file.opened(path) as file:
        return file.read()


def _record(content: Any) -> Record:
    """A record, each of its values of its type.

    Raises:
        TypeError: it has other keys, or values of other types.
    """
    record = Record(**content)
    if not (isinstance(record.answers, dict) and isinstance(record.scores, dict)):
        raise TypeError("a record's answers and scores must be objects")
    if not (
        all(type(each) is str for each in (record.id, record.question, record.target))
        and all(type(each) is bool for each in (record.base, record.latents))
        and all(isinstance(each, dict) for each in record.scores.values())
    ):
        raise TypeError("a record's values are of other types")
    return record


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two runs on the same questions."""

    questions: int
    first: int
    """Questions that the first run got right."""

    second: int
    """Questions that the second run got right."""

    test: McNemar

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "questions": self.questions,
            "first": 100 * self.first / self.questions,
            "second": 100 * self.second / self.questions,
            "difference": 100 * (self.second - self.first) / self.questions,
            "gained": self.test.gained,
            "lost": self.test.lost,
            "p": self.test.p,
            "exact": self.test.exact,
        }


def compare(first: Path, second: Path, *, condition: str = "latents") -> Comparison:
    """Compare two files of records, question by question.

    Args:
        first: A file of records.
        second: Another, of the same questions in any order.
        condition: Whose answers: `base` or `latents`.

    Raises:
        DeliberateError: the questions are not the same; names one.
    """
    one, two = ({record.id: record for record in read(path)} for path in (first, second))
    way_out = "compare records of the same benchmark, data and --bench-limit"
    for this, that, there in ((one, two, second), (two, one, first)):
        missing = next((name for name in this if name not in that), None)
        if missing is not None:
            raise DeliberateError(f"question {missing!r} is not in {str(there)!r}: {way_out}")
    changed = next((name for name in one if one[name].question != two[name].question), None)
    if changed is not None:
        raise DeliberateError(f"question {changed!r} is another one in {str(second)!r}: {way_out}")
    before = [getattr(one[name], condition) for name in one]
    after = [getattr(two[name], condition) for name in one]
    return Comparison(
        questions=len(one), first=sum(before), second=sum(after), test=mcnemar(before, after)
    )
