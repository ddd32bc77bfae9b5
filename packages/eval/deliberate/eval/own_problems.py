"""Which of a user's own questions are asked.

files, columns --read_pairs, draw--> problems --fitting--> those that the base has positions for
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from deliberate.core.base import Base
from deliberate.core.errors import TextError
from deliberate.core.pairs import PairFormat, read_pairs
from deliberate.core.problems import Problem
from deliberate.eval.sample import MOST_SEED
from deliberate.eval.solve import answer_tokens, question_tokens, tokenized

FEWEST = 2
"""Questions, since latents are compared with those of another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnProblems:
    """Questions and answers of files, which take the place of families and have no steps."""

    sources: tuple[str, ...]
    """Paths of files or folders, or Hub ids, as `deliberate.core.sources` reads them."""

    form: PairFormat
    """Their columns, and what stands around a question and before an answer."""

    count: int | None = None
    """Most questions of each file, drawn by the seed; none is all of them."""

    seed: int = 0
    """Of the draw, random latents and the resampling."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: there is no source, or one of the numbers is out of range.
        """
        if not self.sources:
            raise ValueError("sources must name at least one file of questions and answers")
        if self.count is not None and self.count < FEWEST:
            raise ValueError(
                f"count must be at least {FEWEST}, for another question's latents, got {self.count}"
            )
        if not 0 <= self.seed <= MOST_SEED:
            raise ValueError(f"seed must be from 0 to {MOST_SEED}, got {self.seed}")

    def problems(self) -> list[Problem]:
        """The problems, file by file, each file's in its own order.

        White space at an answer's end is taken off: what is judged there is whether the line ends.

        Raises:
            TextError: a source cannot be read or has no such columns, or there are too few.
        """
        found = [
            problem
            for source, family in zip(self.sources, _families(self.sources), strict=True)
            for problem in self._drawn(source, family)
        ]
        if len(found) < FEWEST:
            raise TextError(
                f"{', '.join(map(repr, self.sources))} holds one question: give at least "
                f"{FEWEST}, since latents are compared with those of another one"
            )
        return found

    def _drawn(self, source: str, family: str) -> list[Problem]:
        pairs = read_pairs(source, self.form, split="validation")
        questions, answers = pairs["question"][:], pairs["answer"][:]
        chosen = range(len(questions))
        if self.count is not None and self.count < len(questions):
            chosen = sorted(Random(self.seed).sample(chosen, self.count))
        return [
            Problem(
                family=family,
                steps=0,
                question=questions[number],
                work=(),
                answer=answers[number].rstrip(),
            )
            for number in chosen
        ]

    def fitting(self, base: Base, problems: Sequence[Problem], latents: int) -> list[Problem]:
        """The problems that the base has positions for, wherever a batch puts them together.

        A batch takes as many positions as its longest question and its longest answer, so that
        answers may be no longer than lets most problems stay.

        Args:
            base: Whose positions, and whose tokenizer.
            problems: From `problems`.
            latents: Between question and answer.

        Raises:
            TextError: fewer than two fit.
        """
        rows = tokenized(base, problems, self.form)
        room = float("inf") if base.positions is None else base.positions - latents
        sizes = [(question_tokens(row), answer_tokens(row)) for row in rows]

        def kept(longest: int) -> list[Problem]:
            return [
                problem
                for problem, (question, answer) in zip(problems, sizes, strict=True)
                if question and answer <= longest and question + longest <= room
            ]

        lengths = sorted({answer for _, answer in sizes}, reverse=True)
        fit = max(map(kept, lengths), key=len)
        if len(fit) < FEWEST:
            raise TextError(
                f"{base.id!r} has {base.positions} positions, and {len(fit)} of {len(problems):,} "
                f"questions of {', '.join(map(repr, self.sources))} with {latents} latents and "
                "their answers fit: give shorter ones"
            )
        return fit

    def few(self, problems: Sequence[Problem]) -> list[Problem]:
        """None: a file has no other problems on which a chain of thought's cue may be chosen.

        Args:
            problems: Those asked.

        Raises:
            TextError: always.
        """
        raise TextError(
            f"a chain of thought's cue is chosen on problems that are not asked, and of "
            f"{len(problems):,} questions of one's own all are: compare without it"
        )

    def to_dict(self) -> dict[str, Any]:
        """What a result says of where its questions are from."""
        return {
            "sources": list(self.sources),
            "pairs": asdict(self.form),
            "count": self.count,
            "seed": self.seed,
        }


def _families(sources: Sequence[str]) -> list[str]:
    """What each source's problems are called: by its name alone, unless another has the same."""
    names = [Path(source).name for source in sources]
    return names if all(names) and len({*names}) == len(names) else list(sources)
