"""Controls: latents that are not the right ones, to see whether content is what helps.

    right latents --change--> another text's | random | zero | reversed

A batch's latents are (batch, anchors, latents, hidden), one text a row; a row's partner is a row
of another text where the batch has one.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

Change = Callable[[Any, Any], Any]
"""From a batch's latents and its rows' partners to other latents of the same shape."""


def shuffled(
    latents: Float[Tensor, "batch anchors latents hidden"], partners: Int[Tensor, " batch"]
) -> Float[Tensor, "batch anchors latents hidden"]:
    """Another text's latents."""
    return latents[partners]


def shuffled_but_last(
    latents: Float[Tensor, "batch anchors latents hidden"], partners: Int[Tensor, " batch"]
) -> Float[Tensor, "batch anchors latents hidden"]:
    """Another text's latents, but for the last: it carries the next token in a warm start."""
    return torch.cat([latents[partners][:, :, :-1], latents[:, :, -1:]], dim=2)


def zero(
    latents: Float[Tensor, "batch anchors latents hidden"], partners: Int[Tensor, " batch"]
) -> Float[Tensor, "batch anchors latents hidden"]:
    """Zeros: the places are read, and nothing is in them."""
    return torch.zeros_like(latents)


def in_reverse(
    latents: Float[Tensor, "batch anchors latents hidden"], partners: Int[Tensor, " batch"]
) -> Float[Tensor, "batch anchors latents hidden"]:
    """The same latents in reversed order."""
    return latents.flip(2)


class Random:
    """Random directions, each as long as the latent that it stands for."""

    def __init__(self, seed: int) -> None:
        """Draw from this seed on, other directions at each call."""
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(
        self,
        latents: Float[Tensor, "batch anchors latents hidden"],
        partners: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch anchors latents hidden"]:
        """Draw latents."""
        drawn = torch.randn(latents.shape, generator=self.generator).to(latents)
        return drawn * (latents.norm(dim=-1, keepdim=True) / drawn.norm(dim=-1, keepdim=True))


CONTROLS: dict[str, Callable[[int], Change]] = {
    "shuffled": lambda seed: shuffled,
    "shuffled_but_last": lambda seed: shuffled_but_last,
    "random": Random,
    "zero": lambda seed: zero,
    "reversed": lambda seed: in_reverse,
}
"""What makes each control's change of latents, from a seed."""

DEFAULT = ("shuffled", "shuffled_but_last")
"""The controls where none are named."""

OF_PARTNERS = ("shuffled", "shuffled_but_last")
"""Those that take from another text."""

OF_SEVERAL = ("shuffled_but_last", "reversed")
"""Those that say nothing of a single latent."""
