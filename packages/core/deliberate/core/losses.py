"""Losses of held-out passages, summed up by passage and token ahead.

batches' sums --joined--> Losses --> perplexity, its change against the base
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


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


def joined(parts: Sequence[Losses]) -> Losses:
    """The losses of all batches."""
    return Losses(
        sums={name: torch.cat([part.sums[name] for part in parts]) for name in parts[0].sums},
        counts=torch.cat([part.counts for part in parts]),
        documents=torch.cat([part.documents for part in parts]),
        partners=torch.cat([part.partners for part in parts]),
    )
