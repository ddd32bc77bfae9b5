"""Measuring: the base's loss by token ahead on held-out text, under several conditions.

    passages --base--> Reading --conditions--> latents --> loss by token ahead, summed a passage

Training's validation and `deliberate eval` are both this code.

Source: arXiv:2412.17747, section 3.1; the paper measures after every token, we after sampled
ones or after every one that has room. Section A.5 for latents that arrive late.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deliberate.core.ahead_loss import ahead_losses, plain_losses
from deliberate.core.askings import Writing, later_askings
from deliberate.core.base import Base
from deliberate.core.cache import Reading
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.passages import Passage, Rows, batches, laid_out

AHEAD_REPORTED = (1, 2, 4, 8, 16, 32)
"""Tokens after the anchor that tables show, as in the paper's table 1."""

ANCHORS_AT_ONCE = 64
"""Anchors of a passage that go through the base together: memory does not grow with more."""

Latents = Float[Tensor, "batch anchors latents hidden"]
Partners = Int[Tensor, " batch"]


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What the base reads after each anchor."""

    writer: Coprocessor
    """Writes the latents."""

    change: Callable[[Latents, Partners], Latents] = lambda latents, partners: latents
    """Applied to a batch's latents before the base reads them; the second argument is each
    row's partner, a row of another document where the batch has one."""

    every: int | None = None
    """Latents are written again, and the old ones dropped, each time this many tokens were read;
    none writes them once."""

    def writing(self, reading: Reading, partners: Partners) -> Writing:
        """What writes its latents after any anchors of these texts."""
        return lambda anchors: self.change(self.writer(reading, anchors), partners)


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

    def of(self, passages: Bool[Tensor, " passages"]) -> "Losses":
        """Those of some passages alone."""
        return Losses(
            sums={name: sums[passages] for name, sums in self.sums.items()},
            counts=self.counts[passages],
            documents=self.documents[passages],
            partners=self.partners[passages],
        )

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


def measure(
    base: Base,
    conditions: Mapping[str, Condition],
    chosen: Sequence[Passage],
    *,
    anchors: int | None,
    ahead: int,
    delay: int = 0,
    batch: int = 8,
    seed: int = 0,
) -> Losses:
    """Loss at each of the `ahead` tokens after anchors, for the base and each condition.

    Args:
        base: As in `measure_late`, as are the others.
        conditions: By name.
        chosen: Passages.
        anchors: In each passage.
        ahead: Tokens after each anchor.
        delay: Tokens that the base decodes before the latents arrive; the losses are on later ones.
        batch: Passages in each forward.
        seed: Of the anchors.
    """
    losses = measure_late(
        base,
        conditions,
        chosen,
        delays=[delay],
        anchors=anchors,
        ahead=ahead,
        batch=batch,
        seed=seed,
    )
    return losses[delay]


@torch.no_grad()
def measure_late(
    base: Base,
    conditions: Mapping[str, Condition],
    chosen: Sequence[Passage],
    *,
    delays: Sequence[int],
    anchors: int | None,
    ahead: int,
    batch: int = 8,
    seed: int = 0,
    on_batch: Callable[[int], None] = lambda done: None,
) -> dict[int, Losses]:
    """The same after several delays of the latents, all at the same anchors.

    Args:
        base: Reads texts and latents.
        conditions: By name; all of them at the same anchors.
        chosen: From `passages`, each longer than `ahead` and the longest delay together, or all
            with an anchor of their own and more than that delay behind it.
        delays: Tokens that the base decodes before the latents arrive.
        anchors: Anchors in each passage, or as many as fit, where they are drawn; none is after
            every token that has room.
        ahead: Tokens after each anchor, or as many as one passage has behind its own anchor.
        batch: Passages in each forward.
        seed: Of the anchors.
        on_batch: Told of the passages done so far.

    Returns:
        Losses by delay.

    Raises:
        ValueError: latents are asked for again and arrive late.
    """
    if any(each.every for each in conditions.values()) and any(delays):
        raise ValueError(f"every is for delay 0 alone, got delays {[*delays]}")
    most = max((c.writer.config.latents for c in conditions.values()), default=0)
    own = [len(row.token_ids) - 1 - row.anchor for row in chosen if row.anchor is not None]
    spans = {delay: min(ahead, max(own) - delay) if own else ahead for delay in delays}
    behind = max(delay + span for delay, span in spans.items())
    parts: dict[int, list[Losses]] = {delay: [] for delay in delays}
    done = 0
    for numbers in batches(chosen, size=batch):
        rows = laid_out(
            base, chosen, numbers, anchors=anchors, latents=most, behind=behind, seed=seed
        )
        reading = base.read(rows.token_ids)
        documents = torch.tensor([chosen[number].document for number in numbers])
        for delay, losses in _losses(base, conditions, reading, rows, spans).items():
            counted = rows.counted(ahead=spans[delay], delay=delay)
            parts[delay].append(
                Losses(
                    sums={n: (loss * counted).sum(1).double().cpu() for n, loss in losses.items()},
                    counts=counted.sum(1).cpu(),
                    documents=documents,
                    partners=documents[rows.partners.cpu()],
                )
            )
        done += len(numbers)
        on_batch(done)
    return {delay: _joined(each) for delay, each in parts.items()}


def _joined(parts: Sequence[Losses]) -> Losses:
    """The losses of all batches."""
    return Losses(
        sums={name: torch.cat([part.sums[name] for part in parts]) for name in parts[0].sums},
        counts=torch.cat([part.counts for part in parts]),
        documents=torch.cat([part.documents for part in parts]),
        partners=torch.cat([part.partners for part in parts]),
    )


def _losses(
    base: Base,
    conditions: Mapping[str, Condition],
    reading: Reading,
    rows: Rows,
    spans: Mapping[int, int],
) -> dict[int, dict[str, Tensor]]:
    """One batch's losses (batch, anchors, ahead) by delay, for the base and each condition."""
    found: dict[int, dict[str, Tensor]] = {}
    plain = [name for name, each in conditions.items() if not each.writer.writes_latents]
    for delay, ahead in spans.items():
        late = {"ahead": ahead, "delay": delay}
        found[delay] = {"base": plain_losses(base, reading, rows.anchors, **late)}
        for name in plain:
            writer = conditions[name].writer
            found[delay][name] = writer.losses(base, reading, rows.anchors, **late)
    parts: dict[tuple[int, str], list[Tensor]] = {}
    for anchors in rows.anchors.split(ANCHORS_AT_ONCE, dim=1):
        for name, latents in written(conditions, reading, anchors, rows.partners):
            condition = conditions[name]
            writing, every = condition.writing(reading, rows.partners), condition.every
            positions = condition.writer.config.positions
            for delay, ahead in spans.items():
                losses = ahead_losses(
                    base, reading, anchors, latents, ahead=ahead, positions=positions, delay=delay
                )
                later = [
                    ahead_losses(base, reading, at, again, ahead=count, positions=positions)
                    for at, again, count in later_askings(
                        writing, anchors, ahead=ahead, every=every
                    )
                ]
                losses = torch.cat([losses[..., :every], *later], dim=2)
                parts.setdefault((delay, name), []).append(losses)
    for (delay, name), each in parts.items():
        found[delay][name] = torch.cat(each, dim=1)
    return {delay: {n: each[n] for n in ("base", *conditions)} for delay, each in found.items()}


def written(
    conditions: Mapping[str, Condition],
    reading: Reading,
    anchors: Int[Tensor, "batch anchors"],
    partners: Int[Tensor, " batch"],
) -> Iterator[tuple[str, Float[Tensor, "batch anchors latents hidden"]]]:
    """What each condition has the base read after these anchors; each writer writes once.

    Args:
        conditions: By name; those without latents are passed over.
        reading: Texts as the base read them.
        anchors: Index of the last token that each group's latents know.
        partners: For each row another.

    Yields:
        A condition's name and its latents.
    """
    right: dict[int, Tensor] = {}
    for name, condition in conditions.items():
        writer = condition.writer
        if writer.writes_latents:
            if id(writer) not in right:
                right[id(writer)] = writer(reading, anchors)
            yield name, condition.change(right[id(writer)], partners)
