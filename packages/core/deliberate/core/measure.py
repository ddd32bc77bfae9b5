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
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.errors import TextError
from deliberate.core.groups import last_anchor, sample_anchors

AHEAD_REPORTED = (1, 2, 4, 8, 16, 32)
"""Tokens after the anchor that tables show, as in the paper's table 1."""

Latents = Float[Tensor, "batch anchors latents hidden"]


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A stretch of one document that the base reads by itself."""

    document: int
    """Which document it is from."""

    token_ids: list[int]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What the base reads after each anchor."""

    writer: Coprocessor
    """Writes the latents."""

    change: Callable[[Latents], Latents] = lambda latents: latents
    """Applied to a batch's latents before the base reads them."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Losses:
    """Summed losses of each passage, for the base and each condition."""

    sums: dict[str, Float[Tensor, "passages ahead"]]
    """In nats, over the passage's anchors; `base` is there always."""

    anchors: Int[Tensor, " passages"]
    """Anchors in each passage."""

    documents: Int[Tensor, " passages"]
    """Document of each passage."""

    def perplexity(self, name: str) -> list[float]:
        """Perplexity at each token ahead."""
        return (self.sums[name].sum(0) / self.anchors.sum()).exp().tolist()

    def change_percent(self, name: str) -> list[float]:
        """Change of perplexity against the base at each token ahead, in percent."""
        difference = (self.sums[name] - self.sums["base"]).sum(0) / self.anchors.sum()
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
    found = []
    for document, text in enumerate(texts["text"]):
        ids = tokenizer(text, verbose=False)["input_ids"]
        for start in range(0, len(ids), length):
            piece = ids[start : start + length]
            if len(piece) >= least:
                found.append(Passage(document=document, token_ids=piece))
    if not found:
        raise TextError(f"no text has {least} tokens or more: give longer texts")
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
    batch: int = 8,
    seed: int = 0,
    on_batch: Callable[[int], None] = lambda done: None,
) -> Losses:
    """Loss at each of the `ahead` tokens after sampled anchors, for the base and each condition.

    Args:
        base: Reads texts and latents.
        conditions: By name; all of them at the same anchors.
        chosen: From `passages`, each longer than `ahead`.
        anchors: Anchors in each passage, or as many as fit.
        ahead: Tokens after each anchor.
        batch: Passages in each forward.
        seed: Of the anchors.
        on_batch: Told of the passages done so far.
    """
    sums: dict[str, list[Tensor]] = {name: [] for name in ("base", *conditions)}
    order = sorted(range(len(chosen)), key=lambda index: -len(chosen[index].token_ids))
    most = max((c.writer.config.latents for c in conditions.values()), default=0)
    counts = []
    for rows in _batches(order, batch):
        token_ids, where, valid = _layout(
            base,
            [chosen[row] for row in rows],
            rows,
            anchors=anchors,
            ahead=ahead,
            most=most,
            seed=seed,
        )
        reading = base.read(token_ids)
        losses = {"base": plain_losses(base, reading, where, ahead=ahead)}
        written: dict[int, Tensor] = {}
        for name, condition in conditions.items():
            writer = condition.writer
            if id(writer) not in written:
                written[id(writer)] = writer(reading, where)
            latents = condition.change(written[id(writer)])
            positions = writer.config.positions
            losses[name] = ahead_losses(
                base, reading, where, latents, ahead=ahead, positions=positions
            )
        for name, loss in losses.items():
            sums[name].append((loss * valid[..., None]).sum(1).double().cpu())
        counts.append(valid.sum(1).cpu())
        on_batch(sum(map(len, counts)))
    documents = torch.tensor([chosen[index].document for index in order])
    return Losses(
        sums={name: torch.cat(parts) for name, parts in sums.items()},
        anchors=torch.cat(counts),
        documents=documents,
    )


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
    most: int,
    seed: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Padded tokens, anchors, and which anchors count (short passages repeat their last)."""
    width = max(len(row.token_ids) for row in rows)
    token_ids = torch.zeros(len(rows), width, dtype=torch.long)
    where, valid = [], []
    for index, (row, number) in enumerate(zip(rows, numbers, strict=True)):
        token_ids[index, : len(row.token_ids)] = torch.tensor(row.token_ids)
        last = last_anchor(len(row.token_ids), latents=most, ahead=ahead, limit=base.positions)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        drawn = sample_anchors(1, anchors=anchors, last=last, generator=generator)[0]
        missing = anchors - len(drawn)
        where.append(torch.nn.functional.pad(drawn, (0, missing), value=int(drawn[-1])))
        valid.append(torch.arange(anchors) < len(drawn))
    device = base.device
    return token_ids.to(device), torch.stack(where).to(device), torch.stack(valid).to(device)
