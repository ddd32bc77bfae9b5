"""Muon for the matrices of a small model: steps whose singular values are all near one.

    gradients of one shape --momentum, stacked--> Newton-Schulz in float32 --> steps

`torch.optim.Muon` does the same matrix by matrix and in bfloat16, which many CPUs multiply slowly.

Source: K. Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024), the form of the
iteration; the step's size, as large as AdamW's, from arXiv:2502.16982, section 2.2.
"""

from collections import defaultdict
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import AdamW

ROUNDS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)
"""Of x, x³ and x⁵: the singular values' way towards one."""

SIZE = 0.2
"""Root mean square of a step at rate 1, about that of AdamW's."""

MOMENTUM = 0.95
"""Of the mean of gradients, looked ahead of by Nesterov's rule."""


class Muon(AdamW):
    """Orthogonal steps for groups with `orthogonal: True`, AdamW's steps for all others.

    The parameters of such groups are matrices.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move each parameter by one step; what `closure` computes anew, if there is one."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            if group.get("orthogonal"):
                _orthogonal_step(self.state, group)
        super().step()
        return loss


def _orthogonal_step(states: dict[Tensor, Any], group: dict[str, Any]) -> None:
    """Move a group's matrices, and leave AdamW no gradient of them."""
    alike = defaultdict(list)
    for matrix in group["params"]:
        if matrix.grad is not None:
            alike[matrix.shape].append(matrix)
    for (rows, columns), matrices in alike.items():
        ahead = torch.stack([_ahead(states[matrix], matrix.grad) for matrix in matrices])
        size = group["lr"] * SIZE * max(rows, columns) ** 0.5
        for matrix, step in zip(matrices, orthogonal(ahead), strict=True):
            matrix.mul_(1 - group["lr"] * group["weight_decay"]).sub_(step, alpha=size)
            matrix.grad = None


def _ahead(state: dict[str, Tensor], gradient: Tensor) -> Tensor:
    """The gradient's running mean, and one more share of the gradient."""
    if not state:
        state["mean"] = torch.zeros_like(gradient)
        state["step"] = torch.zeros(())  # not heeded here: AdamW looks for it when it is restored
    mean = state["mean"].lerp_(gradient, 1 - MOMENTUM)
    return gradient.lerp(mean, MOMENTUM)


def orthogonal(
    matrices: Float[Tensor, "matrix rows columns"],
) -> Float[Tensor, "matrix rows columns"]:
    """Matrices of the same singular vectors, whose singular values are between 0.7 and 1.2."""
    wide = matrices if matrices.size(1) <= matrices.size(2) else matrices.mT
    found = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    first, third, fifth = QUINTIC
    for _ in range(ROUNDS):
        square = found @ found.mT
        found = first * found + (third * square + fifth * square @ square) @ found
    return found if wide is matrices else found.mT
