"""The coprocessor and its loss as one module, which several processes can wrap.

    Batch --base reads--> Reading --coprocessor, base--> mean loss of ahead tokens
                                    latents, embeddings of a thought --> how far apart they are

Source: arXiv:2412.17747, sections 2.2 and 2.3; thoughts are ours.
"""

from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deliberate.core.base import Base
from deliberate.core.coprocessor import Coprocessor
from deliberate.train.recipe import Recipe

TOKENS_AT_ONCE = 4096
"""Embeddings that are looked at at a time: a large vocabulary's are gigabytes."""


class Objective(nn.Module):
    """What is minimised; its weights are the coprocessor's."""

    def __init__(self, coprocessor: Coprocessor, base: Base, recipe: Recipe) -> None:
        """Hold the coprocessor, and the base without its weights."""
        super().__init__()
        self.coprocessor = coprocessor
        self.base, self.recipe = base, recipe
        self._embedding = mean_square(base) if recipe.objective.thought else 1.0

    def forward(
        self,
        token_ids: Int[Tensor, "batch token"],
        anchors: Int[Tensor, "batch anchors"],
        weights: Float[Tensor, "batch anchors ahead"] | None = None,
        spelled: Int[Tensor, "batch anchors latents"] | None = None,
    ) -> Float[Tensor, ""]:
        """Loss, in nats, of the ahead tokens of all anchors; arguments are fields of `Batch`.

        Where latents are drawn to thoughts, that loss is added.
        """
        objective, coprocessor = self.recipe.objective, self.coprocessor
        with precision(self.base, self.recipe):
            reading = self.base.read(token_ids)
            drawn = spelled is not None and coprocessor.writes_latents and not coprocessor.baseline
            latents = coprocessor(reading, anchors) if drawn else None
            losses = coprocessor.losses(
                self.base,
                reading,
                anchors,
                ahead=objective.ahead if weights is None else weights.shape[-1],
                delay=objective.delay,
                latents=latents,
            )
            heeded = losses[..., objective.skip :]  # with weights, those of pairs, it is 0
            loss = heeded.mean() if weights is None else (losses * weights).sum()
        if latents is None or spelled is None:
            return loss
        apart = latents.float() - self.base.embed(spelled).float()
        return loss + objective.thought * apart.square().mean() / self._embedding


@torch.no_grad()
def mean_square(base: Base) -> float:
    """Of all input embeddings: what a distance of latents from some of them is divided by.

    The same in every batch, so that parts of one add up to the whole.
    """
    parts = torch.arange(base.vocab, device=base.device).split(TOKENS_AT_ONCE)
    return sum(float(base.embed(part).float().square().sum()) for part in parts) / (
        base.vocab * base.hidden
    )


def precision(base: Base, recipe: Recipe) -> Any:
    """The numbers that a run computes in, as a context."""
    if recipe.base.dtype == "float32":
        return nullcontext()
    return torch.autocast(base.device.type, torch.bfloat16)
