"""Thoughts in texts: stretches that latents are to stand for, and that the base never reads.

    "7 + 5 = <think>seven and five</think>12" --apart--> "7 + 5 = 12", [(8, "seven and five")]
    [x0 .. anchor] [thought] --last tokens--> what the latents are drawn to: (latents,)

Ours, not the paper's, whose latents learn from the tokens behind them alone.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

NONE = -1
"""In place of a token where a thought is shorter than the latents are many."""


class Thought(NamedTuple):
    """One thought of a text."""

    place: int
    """Characters of the text, read without thoughts, that stand before it."""

    text: str


def apart(text: str, tags: Sequence[str]) -> tuple[str, list[Thought]]:
    """A text without its thoughts, and these.

    Args:
        text: Where a thought is opened and not closed, or the other way round, the string stays.
        tags: What opens and what closes a thought.
    """
    parts = _pattern(tags).split(text)
    read, found, length = parts[::2], [], 0
    for before, thought in zip(read, parts[1::2], strict=False):
        length += len(before)
        found.append(Thought(length, thought))
    return "".join(read), found


def outside(place: int, text: str, tags: Sequence[str]) -> int:
    """The last place up to one that stands within no thought; arguments are those of `apart`."""
    for match in _pattern(tags).finditer(text):
        if match.start() < place < match.end():
            return match.start()
    return place


def _pattern(tags: Sequence[str]) -> re.Pattern[str]:
    opens, closes = map(re.escape, tags)
    return re.compile(f"{opens}(.*?){closes}", re.DOTALL)


def padded(token_ids: Sequence[int], *, latents: int) -> list[int]:
    """The last tokens of a thought, as many as there are latents; `NONE` before fewer."""
    last = list(token_ids[-latents:])
    return [NONE] * (latents - len(last)) + last


def spelled(
    token_ids: Int[Tensor, " token"],
    anchors: Int[Tensor, " anchors"],
    *,
    latents: int,
    marks: Int[Tensor, " marks"] | None = None,
    thoughts: Int[Tensor, "marks latents"] | None = None,
) -> Int[Tensor, "anchors latents"]:
    """What latents are drawn to: the last tokens of the text up to the anchor and its thought.

    Args:
        token_ids: A row. Before its first token stands that token again.
        anchors: Index of the last token that each group's latents know.
        latents: How many there are.
        marks: Where the row's thoughts stand, in rising order; other anchors have none.
        thoughts: Each one's last tokens, from `padded`.
    """
    steps = torch.arange(latents)
    own = token_ids[(anchors[:, None] + 1 - latents + steps).clamp(min=0)]
    if marks is None or thoughts is None:
        return own
    at = torch.searchsorted(marks, anchors).clamp(max=len(marks) - 1)
    thought = thoughts[at].masked_fill((marks[at] != anchors)[:, None], NONE)
    moved = (steps + (thought != NONE).sum(1, keepdim=True)).clamp(max=latents - 1)
    return torch.where(thought == NONE, own.gather(1, moved), thought)
