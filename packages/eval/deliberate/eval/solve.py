"""Do the latents help to answer? Greedy answers to problems, without decoding them.

    [question] latents [ answer, line end] --base--> its choice at each token --> right or wrong

Greedy decoding gives an answer exactly where each of its tokens is the base's choice given those
before it, and the choice behind the last one ends the line: one forward tells.

Source: arXiv:2412.17747, sections 3.2 and 3.3, where benchmarks are asked with latents once, at
the end of the question; made problems are ours.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from datasets import Dataset
from torch import Tensor

from deliberate.core.askings import later_askings
from deliberate.core.base import Base
from deliberate.core.choices import ahead_choices, plain_choices
from deliberate.core.errors import TextError
from deliberate.core.generate import end_tokens
from deliberate.core.groups import ahead_tokens
from deliberate.core.measure import Condition, written
from deliberate.core.memory import Smaller, batch_by_batch
from deliberate.core.pairs import PairFormat, tokenize_pairs
from deliberate.core.passages import Passage, Rows, laid_out
from deliberate.core.problems import Problem

FORM = PairFormat(question="question", answer="answer", separator=" ")
"""Of made problems: latents are written where the question ends, the answer begins with a space."""


def solve(
    base: Base,
    conditions: Mapping[str, Condition],
    asked: Sequence[Problem],
    *,
    form: PairFormat | None = None,
    batch: int = 8,
    on_problems: Callable[[int, int], None] = lambda done, total: None,
    smaller: Smaller | None = None,
) -> dict[str, list[bool]]:
    """Whether the greedy answer up to the line's end is right, for the base and each condition.

    Args:
        base: Reads questions and latents.
        conditions: By name; all of them write latents.
        asked: The problems.
        form: What stands around questions and before answers; none is that of made problems.
        batch: Problems in each forward.
        on_problems: Told of the problems done and to do.
        smaller: What is done where memory runs out, as in `batch_by_batch`.

    Returns:
        By name, `base` among them, in the order of the problems.

    Raises:
        DeliberateError: with `smaller`, the smallest batch is too large for the memory.
        TextError: a problem does not fit the base's positions, or no answer is as long as it takes
            for latents to be asked for again.
    """
    rows = tokenized(base, asked, form)
    _check_askings(conditions, rows)
    return judged(base, conditions, rows, batch=batch, on_problems=on_problems, smaller=smaller)


@torch.no_grad()
def judged(
    base: Base,
    conditions: Mapping[str, Condition],
    rows: Sequence[Passage],
    *,
    batch: int = 8,
    on_problems: Callable[[int, int], None] = lambda done, total: None,
    smaller: Smaller | None = None,
) -> dict[str, list[bool]]:
    """The same of problems as tokens: whatever stands before an answer, one judge.

    Args:
        base: As in `solve`, as are the others.
        conditions: By name.
        rows: From `tokenized`, with more between question and answer if that is wanted.
        batch: Problems in each forward.
        on_problems: Told of the problems done and to do.
        smaller: What is done where memory runs out.

    Raises:
        DeliberateError: with `smaller`, the smallest batch is too large for the memory.
        TextError: a problem does not fit the base's positions.
    """
    most = max((c.writer.config.latents for c in conditions.values()), default=0)
    check_room(base, rows, most, what="latents")
    ends = _Ends(base)
    right = {name: [False] * len(rows) for name in ("base", *conditions)}
    done = 0
    on_problems(done, len(rows))

    def do(numbers: list[int]) -> dict[str, list[bool]]:
        span = max(answer_tokens(rows[number]) for number in numbers)
        laid = laid_out(base, rows, numbers, anchors=1, latents=most, behind=span, seed=0)
        true = ahead_tokens(laid.token_ids, laid.anchors, ahead=span)[:, 0].tolist()
        lasts = [answer_tokens(rows[number]) - 1 for number in numbers]
        return {
            name: [
                chosen[:last] == wanted[:last] and ends(chosen[last])
                for chosen, wanted, last in zip(choices[:, 0].tolist(), true, lasts, strict=True)
            ]
            for name, choices in _choices(base, conditions, laid, span)
        }

    least = 1 + any(condition.partnered for condition in conditions.values())
    for each in batch_by_batch(rows, do, size=batch, least=least, smaller=smaller):
        for name, solved in each.done.items():
            for number, one in zip(each.numbers[: each.own], solved[: each.own], strict=True):
                right[name][number] = one
        done += each.own
        on_problems(done, len(rows))
    return right


def tokenized(
    base: Base, asked: Sequence[Problem], form: PairFormat | None = None
) -> list[Passage]:
    """Each problem's tokens, and after its answer one more, where the line is to end.

    Args:
        base: Whose tokenizer is asked.
        asked: The problems; a row's anchor is its question's last token.
        form: As in `solve`.
    """
    form = FORM if form is None else form
    texts = {
        "question": [problem.question for problem in asked],
        "answer": [problem.answer for problem in asked],
    }
    ended = base.tokenizer.eos_token_id is not None
    return [
        Passage(
            document=number,
            token_ids=row["token_ids"] if ended else [*row["token_ids"], 0],
            anchor=row["anchor"],
        )
        for number, row in enumerate(tokenize_pairs(Dataset.from_dict(texts), base.tokenizer, form))
    ]


def question_tokens(row: Passage) -> int:
    """Tokens of a question and all that stands before its answer."""
    return 1 + (row.anchor or 0)


def answer_tokens(row: Passage) -> int:
    """Tokens of the answer, and the one that ends it."""
    return len(row.token_ids) - 1 - (row.anchor or 0)


def check_room(
    base: Base, rows: Sequence[Passage], count: int, *, what: str, out: str = ""
) -> None:
    """See that everything fits the base's positions.

    Args:
        base: Whose positions.
        rows: From `tokenized`.
        count: What stands between a question and its answer.
        what: What that is.
        out: A way out beside asking fewer steps.

    Raises:
        TextError: it does not.
    """
    longest, needed = max(map(question_tokens, rows)), taken(rows) + count
    if base.positions is not None and needed > base.positions:
        raise TextError(
            f"{base.id!r} has {base.positions} positions, and a question of {longest} tokens with "
            f"{count} {what} and its answer takes {needed}: ask fewer --steps{out}"
        )


def taken(rows: Sequence[Passage]) -> int:
    """Tokens that the longest question and the longest answer take, which may be of one batch."""
    return max(map(question_tokens, rows)) + max(map(answer_tokens, rows))


def _check_askings(conditions: Mapping[str, Condition], rows: Sequence[Passage]) -> None:
    longest = max(map(answer_tokens, rows))
    for name, condition in conditions.items():
        if condition.every is not None and condition.every >= longest:
            raise TextError(
                f"{name!r} asks for latents again after {condition.every} tokens, and the longest "
                f"answer has {longest} with its end: name fewer, or leave it out of --against"
            )


def _choices(
    base: Base, conditions: Mapping[str, Condition], laid: Rows, span: int
) -> list[tuple[str, Tensor]]:
    """The base's choices (batch, 1, span), alone and under each condition."""
    reading = base.read(laid.token_ids)
    found = [("base", plain_choices(base, reading, laid.anchors, ahead=span))]
    for name, latents in written(conditions, reading, laid.anchors, laid.partners):
        condition = conditions[name]
        positions = condition.writer.config.positions
        choices = ahead_choices(
            base, reading, laid.anchors, latents, ahead=span, positions=positions
        )
        later = [
            ahead_choices(base, reading, at, again, ahead=count, positions=positions)
            for at, again, count in later_askings(
                condition.writing(reading, laid.partners),
                laid.anchors,
                ahead=span,
                every=condition.every,
            )
        ]
        found.append((name, torch.cat([choices[..., : condition.every], *later], dim=2)))
    return found


class _Ends:
    """Whether a token ends a line: it ends the text, or its own text begins with a line end."""

    def __init__(self, base: Base) -> None:
        self._tokenizer, self._end = base.tokenizer, end_tokens(base)
        self._known: dict[int, bool] = {}

    def __call__(self, token: int) -> bool:
        if token not in self._known:
            text = cast(str, self._tokenizer.decode([token]))
            self._known[token] = token in self._end or text.startswith("\n")
        return self._known[token]
