"""Measuring: the base's loss by token ahead on held-out text, under several conditions.

    passages --base--> Reading --conditions--> latents --> loss by token ahead, summed a passage

Training's validation and `deliberate eval` are both this code.

Source: arXiv:2412.17747, section 3.1; the paper measures after every token, we after sampled
ones.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from datasets import Dataset
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from deliberate.core.ahead_loss import ahead_losses, plain_losses
from deliberate.core.base import Base
from deliberate.core.cache import Reading
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.errors import TextError
from deliberate.core.groups import last_anchor, sample_anchors
from deliberate.core.packing import start_of_text

AHEAD_REPORTED = (1, 2, 4, 8, 16, 32)
"""Tokens after the anchor that tables show, as in the paper's table 1."""

Latents = Float[Tensor, "batch anchors latents hidden"]
Partners = Int[Tensor, " batch"]


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A stretch of one document that the base reads by itself."""

    document: int
    """Which document it is from."""

    token_ids: list[int]

    anchor: int | None = None
    """The one anchor that is measured, at the tokens that are behind it; none: some are drawn that
    have all ahead tokens behind them."""


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What the base reads after each anchor."""

    writer: Coprocessor
    """Writes the latents."""

    change: Callable[[Latents, Partners], Latents] = lambda latents, partners: latents
    """Applied to a batch's latents before the base reads them; the second argument is each
    row's partner, a row of another document where the batch has one."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Losses:
    """Summed losses of each passage, for the base and each condition."""

    sums: dict[str, Float[Tensor, "passages ahead"]]
    """In nats, over the passage's anchors; `base` is there always."""

    counts: Int[Tensor, "passages ahead"]
    """How many losses each sum is of: the passage's anchors that have a token there."""

    documents: Int[Tensor, " passages"]
    """Document of each passage."""

    partners: Int[Tensor, " passages"]
    """Document of each passage's partner, whose latents a condition may have given it."""

    @property
    def anchors(self) -> Int[Tensor, " passages"]:
        """Anchors in each passage."""
        return self.counts[:, 0]

    def perplexity(self, name: str) -> list[float]:
        """Perplexity at each token ahead."""
        return (self.sums[name].sum(0) / self.counts.sum(0)).exp().tolist()

    def change_percent(self, name: str) -> list[float]:
        """Change of perplexity against the base at each token ahead, in percent."""
        difference = (self.sums[name] - self.sums["base"]).sum(0) / self.counts.sum(0)
        return (100 * difference.expm1()).tolist()


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
        texts: With a column `text`.
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
    found = []
    for document, text in enumerate(texts["text"]):
        ids = tokenizer(text, verbose=False)["input_ids"][len(start) :]
        for first in range(0, len(ids), room):
            piece = [*start, *ids[first : first + room]]
            if least <= len(piece) <= length:
                found.append(Passage(document=document, token_ids=piece))
    if not found:
        raise TextError(
            f"no text has a passage of {least} to {length} tokens: give longer texts, or measure "
            "fewer tokens ahead (`eval --ahead`, in a recipe eval.ahead)"
        )
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(seed))
    return [found[index] for index in order[:limit].tolist()]


@torch.no_grad()
def measure(
    base: Base,
    conditions: dict[str, Condition],
    chosen: Sequence[Passage],
    *,
    anchors: int,
    ahead: int,
    delay: int = 0,
    batch: int = 8,
    seed: int = 0,
    on_batch: Callable[[int], None] = lambda done: None,
) -> Losses:
    """Loss at each of the `ahead` tokens after anchors, for the base and each condition.

    Args:
        base: Reads texts and latents.
        conditions: By name; all of them at the same anchors.
        chosen: From `passages`, each longer than `ahead`, or all with an anchor of their own.
        anchors: Anchors in each passage, or as many as fit, where they are drawn.
        ahead: Tokens after each anchor, or as many as one passage has behind its own anchor.
        delay: Tokens that the base decodes before the latents arrive; the losses are on later ones.
        batch: Passages in each forward.
        seed: Of the anchors.
        on_batch: Told of the passages done so far.
    """
    sums: dict[str, list[Tensor]] = {name: [] for name in ("base", *conditions)}
    order = sorted(range(len(chosen)), key=lambda index: -len(chosen[index].token_ids))
    most = max((c.writer.config.latents for c in conditions.values()), default=0)
    counts, partners = [], []
    own = [len(row.token_ids) - 1 - row.anchor for row in chosen if row.anchor is not None]
    if own:
        anchors, ahead = 1, min(ahead, max(own) - delay)
    for numbers in _batches(order, batch):
        rows = [chosen[number] for number in numbers]
        token_ids, where, valid = _layout(
            base, rows, numbers, anchors=anchors, ahead=ahead, delay=delay, most=most, seed=seed
        )
        partner = _partners(rows)
        losses = _losses(
            base, conditions, base.read(token_ids), where, partner, ahead=ahead, delay=delay
        )
        for name, loss in losses.items():
            sums[name].append((loss * valid).sum(1).double().cpu())
        counts.append(valid.sum(1).cpu())
        partners += [rows[row].document for row in partner]
        on_batch(len(partners))
    return Losses(
        sums={name: torch.cat(parts) for name, parts in sums.items()},
        counts=torch.cat(counts),
        documents=torch.tensor([chosen[number].document for number in order]),
        partners=torch.tensor(partners),
    )


def _losses(
    base: Base,
    conditions: dict[str, Condition],
    reading: Reading,
    where: Tensor,
    partner: list[int],
    *,
    ahead: int,
    delay: int,
) -> dict[str, Tensor]:
    """One batch's losses (batch, anchors, ahead) for the base and each condition."""
    losses = {"base": plain_losses(base, reading, where, ahead=ahead, delay=delay)}
    partners = torch.tensor(partner, device=where.device)
    written: dict[int, Tensor] = {}
    for name, condition in conditions.items():
        writer = condition.writer
        if not writer.writes_latents:
            losses[name] = writer.losses(base, reading, where, ahead=ahead, delay=delay)
            continue
        if id(writer) not in written:
            written[id(writer)] = writer(reading, where)
        latents = condition.change(written[id(writer)], partners)
        positions = writer.config.positions
        losses[name] = ahead_losses(
            base, reading, where, latents, ahead=ahead, positions=positions, delay=delay
        )
    return losses


def _partners(rows: list[Passage]) -> list[int]:
    """For each row the next one of another document, or where there is none the next one."""
    partners = []
    for row in range(len(rows)):
        after = [(row + step) % len(rows) for step in range(1, len(rows) + 1)]
        others = (other for other in after if rows[other].document != rows[row].document)
        partners.append(next(others, after[0]))
    return partners


def _batches(order: list[int], size: int) -> Iterator[list[int]]:
    """Near equal batches of at most `size`, so that none has a single passage unless all have."""
    count = math.ceil(len(order) / size)
    for index in range(count):
        yield order[index * len(order) // count : (index + 1) * len(order) // count]


def _layout(
    base: Base,
    rows: list[Passage],
    numbers: list[int],
    *,
    anchors: int,
    ahead: int,
    delay: int,
    most: int,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Padded tokens, anchors, and which ahead tokens count.

    Passages with few anchors repeat their last, which do not count; nor does padding.
    """
    drawn = [
        _anchors(
            base,
            row,
            anchors=anchors,
            most=most,
            ahead=delay + ahead,
            seed=seed * 1_000_003 + number,
        )
        for row, number in zip(rows, numbers, strict=True)
    ]
    counts = torch.tensor([len(each) for each in drawn])
    number = torch.arange(int(counts.max()))  # and not as many as are wanted: fewer may fit
    where = torch.stack([each[number.clamp(max=len(each) - 1)] for each in drawn])
    lengths = torch.tensor([len(row.token_ids) for row in rows])
    behind = lengths[:, None] - 1 - delay - where
    real = torch.arange(ahead) < behind[..., None]
    valid = real & (number < counts[:, None])[..., None]
    width = max(int(where.max()) + delay + ahead + 1, int(lengths.max()))
    token_ids = torch.zeros(len(rows), width, dtype=torch.long)
    for padded, row in zip(token_ids, rows, strict=True):
        padded[: len(row.token_ids)] = torch.tensor(row.token_ids)
    device = base.device
    return token_ids.to(device), where.to(device), valid.to(device)


def _anchors(
    base: Base, row: Passage, *, anchors: int, most: int, ahead: int, seed: int
) -> Int[Tensor, " anchors"]:
    """A passage's own anchor, or some drawn ones."""
    if row.anchor is not None:
        return torch.tensor([row.anchor])
    last = last_anchor(len(row.token_ids), latents=most, ahead=ahead, limit=base.positions)
    generator = torch.Generator().manual_seed(seed)
    return sample_anchors(1, anchors=anchors, last=last, generator=generator)[0]
