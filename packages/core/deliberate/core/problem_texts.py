"""Made problems as texts to learn from, beside others: the source `problems`.

    split --problems--> a few problems a text, answered at once | worked out --> texts by name
    ... thought: answered at once behind a thought between two strings

Of eight texts seven answer each question at once, and one works each out step by step, behind a
cue: asked a question without it, a base knows that it is to answer.
"""

from collections.abc import Iterator, Sequence
from itertools import count, islice
from random import Random

from deliberate.core.problems import FAMILIES, Problem, is_validation, problems

TEXTS = {"train": 40_000, "validation": 400}
"""Texts of each split."""

MOST_IN_TEXT = 8
"""A text has from one to this many problems."""

STEPS = range(1, 7)
"""Numbers of steps that a problem may have: two are half as frequent as one, three a third, since
what is long is learned from what is short, and takes more tokens."""

WORKED = 8
"""One text in this many is worked out."""


def problem_texts(split: str, *, thought: Sequence[str] = ()) -> dict[str, str]:
    """Texts of a few problems each, the same ones every time.

    Args:
        split: `train` or `validation`. No question of `validation` stands in a text of `train`, not
            even as a line of another's work.
        thought: What opens and what closes the thought between each question and its answer, if
            any is wanted.

    Raises:
        ValueError: no such split.
    """
    if split not in TEXTS:
        raise ValueError(f"split must be 'train' or 'validation', got {split!r}")
    return dict(islice(_texts(split, thought), TEXTS[split]))


def _texts(split: str, thought: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Texts and their names, without end."""
    kinds = [problems(family, steps=steps, split=split) for steps in STEPS for family in FAMILIES]
    weights = [1 / steps for steps in STEPS for _ in FAMILIES]
    draw = Random(f"texts {split}")
    for number in count():
        worked = number % WORKED == 0
        text = ""
        for _ in range(draw.randint(1, MOST_IN_TEXT)):
            [kind] = draw.choices(kinds, weights)
            if worked:
                text += next(each for each in kind if split != "train" or not _tells(each)).worked
            else:
                problem = next(kind)
                between = f"{thought[0]}{problem.thought}{thought[1]}" if thought else ""
                text += f"{problem.question}{between} {problem.answer}\n"
        yield f"{'worked' if worked else 'answered'}/{number:05d}", text


def _tells(problem: Problem) -> bool:
    """Whether a line of the work, such as `7 + 5 = 12`, is a held-out question and its answer."""
    sums = [line for line in problem.work if line[0].isdigit() and "=" in line]
    return any(is_validation(f"{line.partition('=')[0]}=") for line in sums)
