"""Stretches of held-out documents, and how they become batches with anchors.

documents --passages--> Passage --batches, Layout--> padded tokens, anchors, what counts
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from datasets import Dataset
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from deliberate.core.base import Base
from deliberate.core.errors import TextError
from deliberate.core.groups import last_anchor, sample_anchors
from deliberate.core.packing import start_of_text
from deliberate.core.tokens import token_ids


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A stretch of one document that the base reads by itself."""

    document: int
    """Which document it is from."""

    token_ids: list[int]

    anchor: int | None = None
    """The one anchor that is measured, at the tokens that are behind it; none: some are drawn that
    have all ahead tokens behind them."""

    domain: str = ""
    """What its row says it is of, where that was asked for."""


def passages(
    texts: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    *,
    length: int,
    least: int,
    limit: int,
    seed: int = 0,
) -> list[Passage]:
    """Cut documents into passages, and draw some of them.

    Each passage begins with the start token, where the tokenizer begins a text with one.

    Args:
        texts: With a column `text`, and maybe `domain`.
        tokenizer: The base's.
        length: Most tokens in a passage.
        least: Fewest tokens in a passage; shorter remainders are left out.
        limit: Most passages.
        seed: Of the draw.

    Raises:
        TextError: no document is long enough.
    """
    start = start_of_text(tokenizer)
    room = max(1, length - len(start))
    held, found = [], []
    domains = texts["domain"] if "domain" in texts.column_names else [""] * len(texts)
    for document, text in enumerate(texts["text"]):
        ids = token_ids(tokenizer, text)[len(start) :].int()  # all are held until some are drawn
        held.append(ids)
        for first in range(0, len(ids), room):
            if least <= len(start) + len(ids[first : first + room]) <= length:
                found.append((document, first))
    if not found:
        raise TextError(
            f"no text has a passage of {least} to {length} tokens: give longer texts, or measure "
            "fewer tokens ahead (`eval --ahead`, in a recipe eval.ahead)"
        )
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
    drawn = [found[index] for index in order[:limit].tolist()]
    return [
        Passage(
            document=document,
            token_ids=[*start, *held[document][first : first + room].tolist()],
            domain=str(domains[document]),
        )
        for document, first in drawn
    ]


@dataclass(frozen=True, eq=False, kw_only=True)
class Rows:
    """Passages that go through the base together."""

    token_ids: Int[Tensor, "batch token"]
    """Padded on the right."""

    anchors: Int[Tensor, "batch anchors"]
    """A passage that has fewer than others repeats its last."""

    own: Bool[Tensor, "batch anchors"]
    """Whether an anchor is none of those repeated."""

    lengths: Int[Tensor, " batch"]
    """Tokens of each passage."""

    partners: Int[Tensor, " batch"]
    """For each row another, of another document where there is one."""

    def counted(self, *, ahead: int, delay: int) -> Bool[Tensor, "batch anchors ahead"]:
        """Which tokens ahead there are: none behind a repeated anchor, and no padding."""
        behind = self.lengths[:, None] - 1 - delay - self.anchors
        steps = torch.arange(ahead, device=behind.device)
        return (steps < behind[..., None]) & self.own[..., None]


def batches(chosen: Sequence[Passage], *, size: int) -> Iterator[list[int]]:
    """The numbers of passages that go together, those of like length.

    Near equal batches of at most `size`; above two, none has a single passage unless all have.

    Args:
        chosen: The passages.
        size: Most of them in a batch.
    """
    order = sorted(range(len(chosen)), key=lambda index: -len(chosen[index].token_ids))
    yield from cut(order, size=size)


def cut(order: Sequence[int], *, size: int) -> list[list[int]]:
    """Numbers in near equal batches of at most `size`, in their order."""
    count = math.ceil(len(order) / size)
    return [
        [*order[index * len(order) // count : (index + 1) * len(order) // count]]
        for index in range(count)
    ]


def laid_out(
    base: Base,
    chosen: Sequence[Passage],
    numbers: list[int],
    *,
    anchors: int | None,
    latents: int,
    behind: int,
    seed: int,
) -> Rows:
    """A batch of passages and their anchors.

    Args:
        base: Whose positions they must fit.
        chosen: All passages.
        numbers: Which of them, from `batches`.
        anchors: In each passage, or as many as fit; none is after every token that has room. A
            passage with an anchor of its own has that one.
        latents: Most latents after an anchor.
        behind: Tokens that each anchor has behind it.
        seed: Of the anchors; each passage draws by itself.
    """
    rows = [chosen[number] for number in numbers]
    drawn = [
        _anchors(base, row, anchors, latents=latents, behind=behind, seed=seed * 1_000_003 + number)
        for row, number in zip(rows, numbers, strict=True)
    ]
    counts = torch.tensor([len(each) for each in drawn])
    number = torch.arange(int(counts.max()))  # and not as many as are wanted: fewer may fit
    where = torch.stack([each[number.clamp(max=len(each) - 1)] for each in drawn])
    lengths = torch.tensor([len(row.token_ids) for row in rows])
    width = max(int(where.max()) + behind + 1, int(lengths.max()))
    token_ids = torch.zeros(len(rows), width, dtype=torch.long)
    for padded, row in zip(token_ids, rows, strict=True):
        padded[: len(row.token_ids)] = torch.tensor(row.token_ids)
    device = base.device
    return Rows(
        token_ids=token_ids.to(device),
        anchors=where.to(device),
        own=(number < counts[:, None]).to(device),
        lengths=lengths.to(device),
        partners=torch.tensor(_partners(rows), device=device),
    )


def _partners(rows: list[Passage]) -> list[int]:
    """For each row the next one of another document, or where there is none the next one."""
    partners = []
    for row in range(len(rows)):
        after = [(row + step) % len(rows) for step in range(1, len(rows) + 1)]
        others = (other for other in after if rows[other].document != rows[row].document)
        partners.append(next(others, after[0]))
    return partners


def _anchors(
    base: Base, row: Passage, anchors: int | None, *, latents: int, behind: int, seed: int
) -> Int[Tensor, " anchors"]:
    """A passage's own anchor, or all that have room, or some of these."""
    if row.anchor is not None:
        return torch.tensor([row.anchor])
    last = last_anchor(len(row.token_ids), latents=latents, ahead=behind, limit=base.positions)
    if anchors is None:
        return torch.arange(last + 1)
    generator = torch.Generator().manual_seed(seed)
    return sample_anchors(1, anchors=anchors, last=last, generator=generator)[0]
