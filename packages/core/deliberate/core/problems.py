"""Reasoning problems that are made and not downloaded, each of a known number of steps.

    family, steps, split, seed --problems--> Problem(question, work, answer)

    symbols     ((7 + 5) - 3) * 2 = 18          an operation a step
    words       Ann has 7 pears. She buys 5. …  an operation a step
    comparison  Bo is older than Ann. …         a comparison a step
    sorting     Sort 5 2 9: 2 5 9               a pick of the least a step
    variables   a = 3, b = a + 2, …             an assignment a step, beside as many that mislead

Numbers stay from 0 to 99. A question is of the split `validation` if a hash of its words says so,
one in eight: whatever the seeds, no problem of one split is ever one of the other.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from random import Random

MOST = 99
"""The largest number."""

MOST_STEPS = 12
"""The most steps that a problem can have."""

CUE = "Step by step. "
"""Before a question that is worked out. Without it a base would doubt after each question whether
to answer or to begin the work, and where it is unsure of the answer the work would be likelier."""

_UNHELPED = ("sorting", "variables")
HELD_OUT = 8
"""One question in this many is of the split `validation`."""

_PEOPLE = (
    "Ann", "Bo", "Cy", "Dan", "Eve", "Finn", "Gus", "Hal", "Ida", "Jo",
    "Kim", "Lee", "Max", "Nan", "Oli", "Pam", "Quin", "Ray", "Sam", "Tess",
)  # fmt: skip
_THINGS = (
    "apples", "books", "coins", "eggs", "keys", "nails", "pears", "pens", "shells", "stamps",
)  # fmt: skip
_MORE = ("buys", "finds", "is given", "picks up")
_LESS = ("gives away", "loses", "sells", "throws out")
_ORDERS = (("older", "oldest"), ("taller", "tallest"), ("faster", "fastest"), ("richer", "richest"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A question, the way to its answer, and the answer."""

    family: str
    """One of `FAMILIES`, or the name of the file that it is from."""

    steps: int
    """Operations, comparisons, picks or assignments on the way; 0 where nobody counted them."""

    question: str
    """Ends where the answer begins, after a space has still to come."""

    work: tuple[str, ...]
    """What a chain of thought would say, a line a step."""

    answer: str
    """Of those made: digits, a name, or numbers with spaces between them."""

    @property
    def pair(self) -> str:
        """The question and its answer, as a line to learn from."""
        return f"{self.question} {self.answer}\n"

    @property
    def thought(self) -> str:
        """The way to the answer up to where that begins.

        Nothing in families that `nano` answers no better for it (`docs/log.md`, 2026-11-27).
        """
        if self.family in _UNHELPED:
            return ""
        *before, last = self.work
        start, equals, result = last.rpartition("=")
        ends = [f"{start}="] if equals and result.strip() == self.answer else [last, "So"]
        return "".join(f"\n{line}" for line in (*before, *ends))

    @property
    def worked(self) -> str:
        """The question behind its cue, the way to its answer, and the answer."""
        lines = (f"{CUE}{self.question}", *self.work, f"So {self.answer}")
        return "".join(f"{line}\n" for line in lines)


def problems(family: str, *, steps: int, split: str = "train", seed: int = 0) -> Iterator[Problem]:
    """Problems of one family and number of steps, without end; among few possible ones some repeat.

    Args:
        family: One of `FAMILIES`.
        steps: From 1 to `MOST_STEPS`.
        split: `train` or `validation`, which have no question in common.
        seed: Of the draw.

    Raises:
        ValueError: no such family or split, or steps out of range.
    """
    if family not in FAMILIES:
        raise ValueError(f"no family {family!r} of problems: known are {', '.join(FAMILIES)}")
    if split not in {"train", "validation"}:
        raise ValueError(f"split must be 'train' or 'validation', got {split!r}")
    if not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"steps must be from 1 to {MOST_STEPS}, got {steps}")
    draw = Random(f"{family} {steps} {split} {seed}")
    return _drawn(family, steps, split, draw)


def is_validation(question: str) -> bool:
    """Whether a question is of the split `validation`."""
    return hashlib.sha256(question.encode()).digest()[0] % HELD_OUT == 0


def _drawn(family: str, steps: int, split: str, draw: Random) -> Iterator[Problem]:
    while True:
        question, work, answer = FAMILIES[family](draw, steps)
        if is_validation(question) == (split == "validation"):
            yield Problem(
                family=family, steps=steps, question=question, work=tuple(work), answer=answer
            )


_Made = tuple[str, list[str], str]
"""Question, work and answer."""


def _operations(draw: Random, steps: int) -> tuple[int, list[tuple[str, int, int]]]:
    """A start, and operations on it: the sign, the second number and what comes out."""
    start = value = draw.randint(1, 20)
    done = []
    for _ in range(steps):
        signs = [sign for sign, fits in _FITS.items() if fits(value)]
        sign = draw.choice(signs)
        other = draw.randint(1, _ROOM[sign](value))
        value = _RESULT[sign](value, other)
        done.append((sign, other, value))
    return start, done


_FITS: dict[str, Callable[[int], bool]] = {
    "+": lambda value: value < MOST,
    "-": lambda value: value > 1,
    "*": lambda value: 1 < value <= MOST // 2,
}
_ROOM: dict[str, Callable[[int], int]] = {
    "+": lambda value: min(20, MOST - value),
    "-": lambda value: min(20, value - 1),
    "*": lambda value: min(5, MOST // value),
}
_RESULT: dict[str, Callable[[int, int], int]] = {
    "+": lambda value, other: value + other,
    "-": lambda value, other: value - other,
    "*": lambda value, other: value * other,
}


def _symbols(draw: Random, steps: int) -> _Made:
    value, done = _operations(draw, steps)
    said, work = str(value), []
    for number, (sign, other, result) in enumerate(done):
        said = f"({said}) {sign} {other}" if number else f"{said} {sign} {other}"
        work.append(f"{value} {sign} {other} = {result}")
        value = result
    return f"{said} =", work, str(value)


def _words(draw: Random, steps: int) -> _Made:
    value, done = _operations(draw, steps)
    who, what = draw.choice(_PEOPLE), draw.choice(_THINGS)
    said, work = [f"{who} has {value} {what}."], []
    for sign, other, result in done:
        if sign == "*":
            said.append(f"Then {who} has {other} times as many.")
        else:
            verb = draw.choice(_MORE if sign == "+" else _LESS)
            said.append(f"{who} {verb} {other}.")
        work.append(f"{value} {sign} {other} = {result}")
        value = result
    question = f"{' '.join(said)} How many {what} does {who} have?"
    return question, work, str(value)


def _comparison(draw: Random, steps: int) -> _Made:
    people = draw.sample(_PEOPLE, steps + 1)  # from the least to the most
    more, most = draw.choice(_ORDERS)
    facts = [f"{after} is {more} than {before}." for before, after in pairwise(people)]
    told = draw.sample(facts, len(facts))
    return f"{' '.join(told)} Who is {most}?", facts, people[-1]


def _sorting(draw: Random, steps: int) -> _Made:
    numbers = draw.sample(range(1, MOST + 1), steps + 1)
    left, work = list(numbers), []
    for _ in range(steps):
        least = min(left)
        left.remove(least)
        work.append(f"{least} is the least, then {' '.join(map(str, left))}")
    return f"Sort {' '.join(map(str, numbers))}:", work, " ".join(map(str, sorted(numbers)))


def _variables(draw: Random, steps: int) -> _Made:
    names = draw.sample("abcdefghijklmnopqrstuvwxyz", 2 * steps + 2)
    chains = [names[: steps + 1], names[steps + 1 :]]  # the one asked about, and one that misleads
    lines, work, answer = [], [], ""
    for chain in chains:
        value, done = _operations(draw, steps)
        said, found = [f"{chain[0]} = {value}"], []
        for (before, name), (sign, other, value) in zip(pairwise(chain), done, strict=True):
            said.append(f"{name} = {before} {sign} {other}")
            found.append(f"{name} = {value}")
        lines.append(said)
        if chain is chains[0]:
            work, answer = found, str(value)
    order = draw.sample([0] * (steps + 1) + [1] * (steps + 1), 2 * steps + 2)
    told = [lines[chain].pop(0) for chain in order]
    return f"{', '.join(told)}. {chains[0][-1]} =", work, answer


FAMILIES: dict[str, Callable[[Random, int], _Made]] = {
    "symbols": _symbols,
    "words": _words,
    "comparison": _comparison,
    "sorting": _sorting,
    "variables": _variables,
}
"""What makes a problem of each family, from a draw and a number of steps."""
