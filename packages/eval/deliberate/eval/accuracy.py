"""How many problems are solved, by family and steps: shares, differences, intervals, a test.

right or wrong, a problem each --bootstrap, McNemar--> Accuracy
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np

from deliberate.core.base import Base
from deliberate.core.checkpoint import Trained
from deliberate.core.errors import CheckpointError
from deliberate.core.problems import Problem
from deliberate.eval.bench.mcnemar import mcnemar
from deliberate.eval.bootstrap import mean
from deliberate.eval.chain import Chained, chained, plans_of
from deliberate.eval.own_problems import OwnProblems
from deliberate.eval.problem_set import ProblemSet
from deliberate.eval.solve import solve
from deliberate.eval.subject import Subject, conditions_of, smaller_batches

WAY_OUT = "ask fewer --steps or shorter questions, --dtype bfloat16, or another device"
"""What to do where the memory is too small for the smallest batch."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Accuracy:
    """What was solved; `to_dict` is its JSON."""

    base: Base
    trained: Trained
    baselines: Mapping[str, Trained]
    asked: ProblemSet | OwnProblems
    problems: Sequence[Problem] = field(repr=False)
    right: Mapping[str, Sequence[bool]] = field(repr=False)
    """Whether each problem was solved, by condition; `base` is there always."""

    left_out: int = 0
    """Questions that do not fit the base's positions."""

    chains: Mapping[str, Chained] = field(default_factory=dict)
    """The base's own chains of thought, by the name that they have in `right`."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        writers = {"latents": self.trained, **self.baselines}
        keys = [(problem.family, problem.steps) for problem in self.problems]
        families: dict[str, dict[str, Any]] = {}
        for family, steps in dict.fromkeys(keys):
            found = families.setdefault(family, {"all": self._cell([k[0] == family for k in keys])})
            if steps:
                found[str(steps)] = self._cell([key == (family, steps) for key in keys])
        return {
            "total": self._cell([True] * len(keys)),
            "families": families,
            "problems": len(keys),
            "left_out": self.left_out,
            **self.asked.to_dict(),
            **(
                {"chains": {name: each.to_dict() for name, each in self.chains.items()}}
                if self.chains
                else {}
            ),
            "setting": self.trained.coprocessor.describe(),
            **{
                f"{name}_setting": each.coprocessor.describe()
                for name, each in self.baselines.items()
            },
            "fingerprints": {
                "base": self.base.fingerprint,
                **{name: writer.fingerprint for name, writer in writers.items()},
            },
        }

    def _cell(self, those: Sequence[bool]) -> dict[str, Any]:
        """What is to be said of some of the problems."""
        right = {
            name: [one for one, wanted in zip(each, those, strict=True) if wanted]
            for name, each in self.right.items()
        }
        seed = self.asked.seed
        others = [name for name in right if name not in {"base", "latents"}]
        return {
            "problems": sum(those),
            "percent": {
                name: asdict(mean(100 * np.array(each, dtype=float), seed=seed))
                for name, each in right.items()
            },
            "against_base": {
                name: _difference(right["base"], each, seed)
                for name, each in right.items()
                if name != "base"
            },
            "latents_against": {
                name: _difference(right[name], right["latents"], seed) for name in others
            },
        }


def ask_problems(
    base: Base,
    subject: Subject,
    asked: ProblemSet | OwnProblems,
    *,
    batch: int = 8,
    on_problems: Callable[[int, int], None] = lambda done, total: None,
    on_note: Callable[[str], None] = lambda text: None,
) -> Accuracy:
    """Have problems answered by the base alone, with latents, and with what these are compared to.

    Args:
        base: The frozen model.
        subject: The coprocessor, and what it is compared with.
        asked: Which problems.
        batch: Problems in each forward.
        on_problems: Told of the problems done and to do, where a chain of thought does each again.
        on_note: Told of questions that do not fit and are left out, and of a batch that was
            lowered, since the memory is too small for it.

    Raises:
        CheckpointError: a chain of thought is to be as long as latents that there are not, or as
            in `conditions_of`.
        CacheError: as in `plans_of`.
        DeliberateError: the memory is too small for the smallest batch.
        TextError: as in `solve` and `plans_of`, and as `asked` draws and fits its problems.
    """
    writer, chains = subject.trained.coprocessor, _chains(subject)
    drawn = asked.problems()
    latents = max(writer.config.latents, subject.room)
    problems = asked.fitting(base, drawn, latents)
    left_out = len(drawn) - len(problems)
    if left_out:
        on_note(
            f"{left_out:,} of {len(drawn):,} questions left out: {base.id!r} has "
            f"{base.positions} positions for a question, {latents} latents and the longest answer"
        )
    conditions = conditions_of(subject, asked.seed)
    few = asked.few(problems) if chains else []
    plans = plans_of(base, writer, chains, [*problems, *few])
    smaller = smaller_batches(conditions.values(), on_note, what="problems", way_out=WAY_OUT)
    alone = not writer.writes_latents  # the base trained on: it answers in the base's place
    count = _counting(on_problems, len(problems), 1 + alone + len(plans))
    solved = partial(solve, asked=problems, form=asked.form, batch=batch, smaller=smaller)
    if alone:
        del conditions["latents"]
    right = solved(base, conditions, on_problems=count(0))
    if alone:
        own = solved(writer.answering(base), {}, on_problems=count(1))["base"]
        right = {"base": right.pop("base"), "latents": own, **right}
    thought = {
        name: chained(
            base,
            problems,
            plan,
            tried=few,
            batch=batch,
            on_problems=count(number),
            smaller=smaller,
        )
        for number, (name, plan) in enumerate(plans.items(), 1)
    }
    return Accuracy(
        base=base,
        trained=subject.trained,
        baselines=subject.baselines,
        asked=asked,
        problems=problems,
        left_out=left_out,
        right={**right, **{name: each.right for name, each in thought.items()}},
        chains=thought,
    )


def _chains(subject: Subject) -> Sequence[str]:
    """The chains of thought that there are latents to be measured by.

    Raises:
        CheckpointError: the coprocessor's kind writes none.
    """
    trained, chains = subject.trained, subject.chains
    if not chains or trained.coprocessor.writes_latents:
        return chains
    if subject.lenient:
        return ()
    raise CheckpointError(
        f"{trained.id!r} of kind {trained.coprocessor.config.kind!r} writes no latents, which "
        f"{chains[0]!r} is to be compared with: leave it out of --against"
    )


def _counting(
    on_problems: Callable[[int, int], None], problems: int, times: int
) -> Callable[[int], Callable[[int, int], None]]:
    """Makes what tells of problems done, where all were asked so many times before."""

    def after(number: int) -> Callable[[int, int], None]:
        return lambda done, _: on_problems(number * problems + done, times * problems)

    return after


def _difference(first: Sequence[bool], second: Sequence[bool], seed: int) -> dict[str, Any]:
    """From the first to the second, in points, and McNemar's test on the two."""
    points = 100 * (np.array(second, dtype=float) - np.array(first, dtype=float))
    test = mcnemar(list(first), list(second))
    return {
        **asdict(mean(points, seed=seed)),
        "gained": test.gained,
        "lost": test.lost,
        "p": test.p,
        "exact": test.exact,
    }
