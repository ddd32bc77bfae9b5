"""Measuring: the base's loss by token ahead on held-out text, under several conditions.

    passages --base--> Reading --conditions--> latents --> loss by token ahead, summed a passage
                                                           +--> Observed, anchor by anchor

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
from deliberate.core.gate import entropy
from deliberate.core.losses import Losses, joined
from deliberate.core.memory import Smaller, batch_by_batch
from deliberate.core.passages import Passage, Rows, laid_out

AHEAD_REPORTED = (1, 2, 4, 8, 16, 32, 64)
"""Tokens after the anchor that tables show as far as is measured, the paper's table 1 up to 32."""

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

    partnered: bool = True
    """Whether `change` may look at partners, so that a passage cannot go alone."""

    every: int | None = None
    """Latents are written again, and the old ones dropped, each time this many tokens were read;
    none writes them once."""

    def writing(self, reading: Reading, partners: Partners) -> Writing:
        """What writes its latents after any anchors of these texts."""
        return lambda anchors: self.change(self.writer(reading, anchors), partners)


@dataclass(frozen=True, eq=False, kw_only=True)
class Observed:
    """One batch anchor by anchor, after the first delay."""

    losses: dict[str, Float[Tensor, "batch anchors ahead"]]
    """In nats, by condition; `base` is there always."""

    counted: Bool[Tensor, "batch anchors ahead"]
    """Which of them count."""

    anchors: Int[Tensor, "batch anchors"]
    """Index of the last token that each one's latents know."""

    entropy: Float[Tensor, "batch anchors"]
    """How unsure the base alone is of the token after each anchor, in nats."""

    passages: list[int]
    """Which passages these are."""


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
    observe: Callable[[Observed], None] | None = None,
    smaller: Smaller | None = None,
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
        observe: Shown each batch before it is summed up; where nobody looks, nothing more is
            computed than the sums.
        smaller: What is done where memory runs out, as in `batch_by_batch`.

    Returns:
        Losses by delay; latents that are asked for again have none but at delay 0.

    Raises:
        DeliberateError: with `smaller`, the smallest batch is too large for the memory.
    """
    most = max((c.writer.config.latents for c in conditions.values()), default=0)
    spans = _spans(chosen, delays, ahead)
    behind = max(delay + span for delay, span in spans.items())

    def do(numbers: list[int]) -> "_Measured":
        rows = laid_out(
            base, chosen, numbers, anchors=anchors, latents=most, behind=behind, seed=seed
        )
        reading = base.read(rows.token_ids)
        return _Measured(
            rows=rows,
            losses=_losses(base, conditions, reading, rows, spans),
            entropy=None if observe is None else _entropy(base, reading, rows.anchors),
        )

    parts: dict[int, list[Losses]] = {delay: [] for delay in delays}
    done, least = 0, 1 + any(condition.partnered for condition in conditions.values())
    for each in batch_by_batch(chosen, do, size=batch, least=least, smaller=smaller):
        documents = torch.tensor([chosen[number].document for number in each.numbers])
        for delay in delays:
            parts[delay].append(each.done.summed(delay, documents, each.own))
        if observe is not None:
            observe(each.done.observed(delays[0], each.numbers[: each.own]))
        done += each.own
        on_batch(done)
    return {delay: joined(some) for delay, some in parts.items()}


def _spans(chosen: Sequence[Passage], delays: Sequence[int], ahead: int) -> dict[int, int]:
    """Tokens that are measured after each delay."""
    own = [len(row.token_ids) - 1 - row.anchor for row in chosen if row.anchor is not None]
    return {delay: min(ahead, max(own) - delay) if own else ahead for delay in delays}


@dataclass(frozen=True, eq=False, kw_only=True)
class _Measured:
    """One batch's losses (batch, anchors, ahead), by delay and condition."""

    rows: Rows
    losses: dict[int, dict[str, Tensor]]
    entropy: Tensor | None

    def _counted(self, delay: int) -> Tensor:
        return self.rows.counted(ahead=self.losses[delay]["base"].shape[-1], delay=delay)

    def summed(self, delay: int, documents: Tensor, own: int) -> Losses:
        """Summed up a passage, of the first ones alone."""
        counted = self._counted(delay)[:own]
        return Losses(
            sums={
                name: (losses[:own] * counted).sum(1).double().cpu()
                for name, losses in self.losses[delay].items()
            },
            counts=counted.sum(1).cpu(),
            documents=documents[:own],
            partners=documents[self.rows.partners.cpu()][:own],
        )

    def observed(self, delay: int, numbers: list[int]) -> Observed:
        """As it is shown, of these first ones alone."""
        assert self.entropy is not None  # there is somebody who looks
        own = len(numbers)
        return Observed(
            losses={name: losses[:own] for name, losses in self.losses[delay].items()},
            counted=self._counted(delay)[:own],
            anchors=self.rows.anchors[:own],
            entropy=self.entropy[:own],
            passages=numbers,
        )


def _entropy(base: Base, reading: Reading, anchors: Tensor) -> Tensor:
    """How unsure the base alone is of the token after each anchor."""
    assert reading.hidden is not None  # it was read just now
    rows = torch.arange(len(anchors), device=anchors.device)[:, None]
    return entropy(base, reading.hidden[rows, anchors])


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
            found[delay][name] = writer.losses(
                base, reading, rows.anchors, ahead=ahead, delay=delay
            )
    parts: dict[tuple[int, str], list[Tensor]] = {}
    for anchors in rows.anchors.split(ANCHORS_AT_ONCE, dim=1):
        for name, latents in written(conditions, reading, anchors, rows.partners):
            condition = conditions[name]
            writing, every = condition.writing(reading, rows.partners), condition.every
            positions = condition.writer.config.positions
            for delay, ahead in spans.items():
                if delay and every:
                    continue
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
    names = ("base", *conditions)
    return {delay: {n: each[n] for n in names if n in each} for delay, each in found.items()}


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
