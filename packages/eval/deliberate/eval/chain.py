"""A chain of thought by the base alone: what further tokens buy where no latents are written.

    [cue] question [cue] --base decodes--> thought [answer cue] --solve.judged--> right or wrong

Source: arXiv:2412.17747, section 3.3 and table 4, zero-shot chain of thought; how many tokens it is
given, and that there is more than one cue, is ours.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

import torch

from deliberate.core.augment import prefill, tokenize
from deliberate.core.base import Base
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.generate import Sampling, end_tokens, generate
from deliberate.core.memory import Smaller, batch_by_batch
from deliberate.core.passages import Passage
from deliberate.core.problems import CUE, Problem
from deliberate.eval.latency import Latency, measure_latency
from deliberate.eval.solve import check_room, judged, taken, tokenized

LATENCY = "cot:latency"
"""Names a chain of thought of as many tokens as the base decodes in the time of the latents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cue:
    """What has a base think, and then answer."""

    question: str = ""
    """Read right before the question."""

    thought: str
    """Read after the question, before the base decodes."""

    answer: str
    """Begins the line of the answer, which goes on after a space."""

    def asking(self, question: str) -> str:
        """A question with what has a base think; what stands before its line stays there."""
        before, line_end, asked = question.rpartition("\n")
        return f"{before}{line_end}{self.question}{asked}{self.thought}"


CUES = (
    # A base that learned `Problem.worked` writes the way after a line end, and then "So 18".
    Cue(question=CUE, thought="\n", answer="So"),
    # For any other: the words of Kojima et al., arXiv:2205.11916, and in place of theirs for the
    # answer a label, whose line ends with the answer and not with a full stop.
    Cue(thought="\nLet's think step by step.", answer="Answer:"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long a chain of thought may be."""

    tokens: int
    """The most that the base decodes before its answer."""

    latency: Latency | None = None
    """What that number is from, where it was measured."""


@dataclass(frozen=True, kw_only=True)
class Chained:
    """What came of a chain of thought."""

    plan: Plan
    cue: Cue
    right: Sequence[bool] = field(repr=False)
    """Whether each problem was solved."""

    decoded: float
    """Mean tokens of the thought, without a line of the answer in it."""

    extra: float
    """Mean tokens that the question takes more: all cues and the thought."""

    tried: Mapping[str, int]
    """Problems solved by each cue where the cue was chosen, by what it reads before the thought."""

    tried_on: int
    """How many there were."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "most_tokens": self.plan.tokens,
            "question_cue": self.cue.question,
            "cue": self.cue.thought,
            "answer_cue": self.cue.answer,
            "decoded_tokens": self.decoded,
            "extra_tokens": self.extra,
            "tried": dict(self.tried),
            "tried_on": self.tried_on,
            **({"latency": asdict(self.plan.latency)} if self.plan.latency else {}),
        }


def plans_of(
    base: Base, writer: Coprocessor, names: Sequence[str], asked: Sequence[Problem]
) -> dict[str, Plan]:
    """The chains of thought of these names: as many tokens as latents, as said, or as time allows.

    Args:
        base: Whose time it is.
        writer: Whose latents or whose time is the measure.
        names: `cot`, `cot:TOKENS` or `cot:latency`.
        asked: All problems; one of median length is what time is taken of.

    Raises:
        CacheError: such a problem has no room for latents.
        DeliberateError: the memory is too small for it.
        TextError: a problem with its chain of thought does not fit the base's positions.
    """
    plans = {}
    for name in names:
        if name == LATENCY:
            question = sorted((problem.question for problem in asked), key=len)[len(asked) // 2]
            latency = measure_latency(base, writer, tokenize(base, question))
            plans[name] = Plan(tokens=latency.tokens, latency=latency)
        else:
            plans[name] = Plan(tokens=int(name.partition(":")[2] or writer.config.latents))
    if plans:
        _check_room(base, asked, max(plan.tokens for plan in plans.values()))
    return plans


def chained(
    base: Base,
    asked: Sequence[Problem],
    plan: Plan,
    *,
    tried: Sequence[Problem],
    batch: int = 8,
    on_problems: Callable[[int, int], None] = lambda done, total: None,
    smaller: Smaller | None = None,
) -> Chained:
    """Have the base think before it answers, by the cue that serves it better.

    Args:
        base: Thinks and answers, greedily.
        asked: The problems.
        plan: How long it may think.
        tried: Other problems, on which the cue is chosen; the first of `CUES` where they are level.
        batch: Problems in each forward.
        on_problems: Told of the problems thought about and to think about.
        smaller: What is done where memory runs out, as in `batch_by_batch`.

    Raises:
        DeliberateError: with `smaller`, the smallest batch is too large for the memory.
        TextError: a problem with its chain of thought does not fit the base's positions.
    """
    tokens = plan.tokens
    _check_room(base, [*asked, *tried], tokens)
    found = {
        cue: sum(_right(base, _thoughts(base, cue, tried, tokens, batch, smaller), batch, smaller))
        for cue in CUES
    }
    cue = max(CUES, key=found.__getitem__)
    thoughts = _thoughts(base, cue, asked, tokens, batch, smaller, on_problems)
    questions = [row.anchor or 0 for row in tokenized(base, asked)]
    answered = [thought.row.anchor or 0 for thought in thoughts]
    return Chained(
        plan=plan,
        cue=cue,
        right=_right(base, thoughts, batch, smaller),
        decoded=sum(thought.tokens for thought in thoughts) / len(thoughts),
        extra=(sum(answered) - sum(questions)) / len(thoughts),
        tried={cue.thought: count for cue, count in found.items()},
        tried_on=len(tried),
    )


@dataclass(frozen=True, kw_only=True)
class _Thought:
    row: Passage
    """The question, the thought and the answer's cue up to the anchor; the right answer."""

    tokens: int
    """Of the thought."""


def _right(
    base: Base, thoughts: Sequence[_Thought], batch: int, smaller: Smaller | None
) -> list[bool]:
    rows = [thought.row for thought in thoughts]
    return judged(base, {}, rows, batch=batch, smaller=smaller)["base"]


def _cued(base: Base, cue: Cue, asked: Sequence[Problem]) -> list[Passage]:
    """The problems with the cue as a part of the question: a line end may join its last token."""
    return tokenized(base, [replace(each, question=cue.asking(each.question)) for each in asked])


@torch.no_grad()
def _thoughts(
    base: Base,
    cue: Cue,
    asked: Sequence[Problem],
    tokens: int,
    batch: int,
    smaller: Smaller | None = None,
    on_problems: Callable[[int, int], None] = lambda done, total: None,
) -> list[_Thought]:
    """What the base thinks of each problem, and the cue after which its answer is judged."""
    rows, end = _cued(base, cue, asked), end_tokens(base)
    begin = {ended: _further(base, cue.answer, ended=ended) for ended in (True, False)}
    # Its own line of the answer ends a thought: what it says after that is of no use to it.
    sampling = Sampling(max_tokens=tokens, stop=(f"\n{cue.answer} ",))
    found: dict[int, _Thought] = {}

    def think(numbers: list[int]) -> list[_Thought]:
        texts = [rows[number].token_ids[: _length(rows[number])] for number in numbers]
        read = [torch.tensor(text, device=base.device) for text in texts]
        thoughts = []
        for number, text, said in zip(
            numbers, texts, generate(base, prefill(base, read), sampling), strict=True
        ):
            decoded = [token for token in said.token_ids if token not in end]
            thought, ended = _before_answer(base, cue, decoded)
            asking = [*text, *thought, *begin[ended]]
            answer = rows[number].token_ids[len(text) :]
            row = replace(rows[number], token_ids=[*asking, *answer], anchor=len(asking) - 1)
            thoughts.append(_Thought(row=row, tokens=len(thought)))
        return thoughts

    for each in batch_by_batch(rows, think, size=batch, least=1, smaller=smaller):
        found |= zip(each.numbers[: each.own], each.done[: each.own], strict=True)
        on_problems(len(found), len(rows))
    return [found[number] for number in range(len(rows))]


def _before_answer(base: Base, cue: Cue, decoded: list[int]) -> tuple[list[int], bool]:
    """A thought without the base's own line of the answer, and whether it ends its last line.

    That line is then begun by the cue in its place, and judged as it goes on: decoding greedily,
    the base answers the same.
    """
    thought, before = list(decoded), len(cue.thought)
    own = re.search(rf"\n{re.escape(cue.answer)}(?!\w)", cue.thought + _text(base, thought))
    if own is not None:
        while thought and before + len(_text(base, thought)) > own.start() + 1:
            thought.pop()
    return thought, (cue.thought + _text(base, thought)).endswith("\n")


def _further(base: Base, text: str, *, ended: bool) -> list[int]:
    """Tokens of a new line's text after a line that has ended, or is yet to end.

    Taken from behind some text, since a tokenizer may begin a text in its own way.
    """
    before, after = ("a\n", text) if ended else ("a", f"\n{text}")
    known, both, alone = (
        base.tokenizer(each, add_special_tokens=False)["input_ids"]
        for each in (before, before + after, after)
    )
    return both[len(known) :] if both[: len(known)] == known else alone


def _text(base: Base, token_ids: list[int]) -> str:
    return cast(str, base.tokenizer.decode(token_ids))


def _length(row: Passage) -> int:
    """Tokens up to the anchor."""
    return (row.anchor or 0) + 1


def _check_room(base: Base, asked: Sequence[Problem], tokens: int) -> None:
    """Whether problems and chains of thought fit the base's positions, whatever the cue.

    Raises:
        TextError: they do not; names the longest chain that does, if any does.
    """
    cued = [(_begun(base, cue), _cued(base, cue, asked)) for cue in CUES]
    most = (base.positions or 0) - max(begun + taken(rows) for begun, rows in cued)
    out = f", or name a shorter chain of thought, as cot:{most}" if most > 0 else ""
    for begun, rows in cued:
        check_room(base, rows, tokens + begun, what="of a chain of thought", out=out)


def _begun(base: Base, cue: Cue) -> int:
    """Most tokens that begin an answer after a chain of thought."""
    return max(len(_further(base, cue.answer, ended=ended)) for ended in (True, False))
