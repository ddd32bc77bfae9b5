"""Which made problems are asked.

families, steps, count --core.problems--> the same problems each time, none of them twice
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from deliberate.core.base import Base
from deliberate.core.pairs import PairFormat
from deliberate.core.problems import FAMILIES, MOST_STEPS, Problem, problems
from deliberate.eval.sample import MOST_SEED
from deliberate.eval.solve import FORM

TRIED = 120
"""Most problems on which something is chosen, but for two of each family and number of steps."""

PATIENCE = 20
"""Draws for each problem wanted, after which there are no more new ones of its steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSet:
    """Problems by family and number of steps, of the split that is held out."""

    families: tuple[str, ...] = tuple(FAMILIES)
    steps: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    """Operations, comparisons, picks or assignments on the way to an answer."""

    count: int = 100
    """Problems of each family and number of steps, or as many different ones as there are."""

    shots: int = 0
    """Solved problems of its family and steps that stand before each question, of the split that is
    learned: a base that doubts whether to answer at once does so after one."""

    seed: int = 0
    """Of the problems, random latents and the resampling."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: a family is not known, or one of the numbers is out of range.
        """
        for family in self.families:
            if family not in FAMILIES:
                raise ValueError(
                    f"no family {family!r} of problems: known are {', '.join(FAMILIES)}"
                )
        for steps in self.steps:
            if not 1 <= steps <= MOST_STEPS:
                raise ValueError(f"steps must be from 1 to {MOST_STEPS}, got {steps}")
        if self.count < 2:
            raise ValueError(
                f"count must be at least 2, for another question's latents, got {self.count}"
            )
        if self.shots < 0:
            raise ValueError(f"shots must be at least 0, got {self.shots}")
        if not 0 <= self.seed <= MOST_SEED:
            raise ValueError(f"seed must be from 0 to {MOST_SEED}, got {self.seed}")

    @property
    def form(self) -> PairFormat:
        """What stands around questions and before answers."""
        return FORM

    def problems(self, split: str = "validation") -> list[Problem]:
        """The problems, family by family.

        Args:
            split: Or those of the split `train`, on which something is to be chosen.
        """
        found = []
        for family in dict.fromkeys(self.families):
            for steps in sorted({*self.steps}):
                made = problems(family, steps=steps, split=split, seed=self.seed)
                drawn = islice(made, PATIENCE * self.count)
                different = {problem.question: problem for problem in drawn}
                found += map(self._shown(family, steps), islice(different.values(), self.count))
        return found

    def _shown(self, family: str, steps: int) -> Callable[[Problem], Problem]:
        """Puts solved problems before questions, others each time."""
        solved = problems(family, steps=steps, split="train", seed=self.seed + 1)

        def shown(problem: Problem) -> Problem:
            others = (each.pair for each in solved if each.question != problem.question)
            before = "".join(islice(others, self.shots))
            return replace(problem, question=before + problem.question)

        return shown if self.shots else lambda problem: problem

    def fitting(self, base: Base, problems: Sequence[Problem], latents: int) -> list[Problem]:
        """All of them: the same are asked of every base, and refused where they do not fit.

        Args:
            base: Whose positions do not matter.
            problems: From `problems`.
            latents: Nor do these.
        """
        return [*problems]

    def few(self, problems: Sequence[Problem]) -> list[Problem]:
        """Some of the other split, of the same families and steps, on which something is chosen.

        Args:
            problems: Those asked.
        """
        cells = len({(problem.family, problem.steps) for problem in problems})
        return replace(self, count=max(2, min(self.count, TRIED // cells))).problems("train")

    def to_dict(self) -> dict[str, Any]:
        """What a result says of which problems were asked."""
        return {
            "split": "validation",
            "count": self.count,
            "shots": self.shots,
            "seed": self.seed,
        }
