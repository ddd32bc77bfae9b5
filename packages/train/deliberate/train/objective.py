"""The coprocessor and its loss as one module, which several processes can wrap.

    Batch --base reads--> Reading --coprocessor, base--> mean loss of ahead tokens

Source: arXiv:2412.17747, sections 2.2 and 2.3.
"""

from contextlib import nullcontext
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deliberate.core.base import Base
from deliberate.core.coprocessor import Coprocessor
from deliberate.train.recipe import Recipe


class Objective(nn.Module):
    """What is minimised; its weights are the coprocessor's."""

    def __init__(self, coprocessor: Coprocessor, base: Base, recipe: Recipe) -> None:
        """Hold the coprocessor, and the base without its weights."""
        super().__init__()
        self.coprocessor = coprocessor
        self.base, self.recipe = base, recipe

    def forward(
        self,
        token_ids: Int[Tensor, "batch token"],
        anchors: Int[Tensor, "batch anchors"],
        weights: Float[Tensor, "batch anchors ahead"] | None = None,
    ) -> Float[Tensor, ""]:
        """Loss, in nats, of the ahead tokens of all anchors; arguments are fields of `Batch`."""
        objective = self.recipe.objective
        with precision(self.base, self.recipe):
            losses = self.coprocessor.losses(
                self.base,
                self.base.read(token_ids),
                anchors,
                ahead=objective.ahead if weights is None else weights.shape[-1],
                delay=objective.delay,
            )
            return losses.mean() if weights is None else (losses * weights).sum()


def precision(base: Base, recipe: Recipe) -> Any:
    """The numbers that a run computes in, as a context."""
    if recipe.base.dtype == "float32":
        return nullcontext()
    return torch.autocast(base.device.type, torch.bfloat16)
