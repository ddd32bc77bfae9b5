"""Controls: latents that are not the right ones, to see whether content is what helps.

A batch's latents are (batch, anchors, latents, hidden), one text a row.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def shuffled(
    latents: Float[Tensor, "batch anchors latents hidden"],
) -> Float[Tensor, "batch anchors latents hidden"]:
    """Another text's latents."""
    return latents.roll(1, dims=0)


def shuffled_but_last(
    latents: Float[Tensor, "batch anchors latents hidden"],
) -> Float[Tensor, "batch anchors latents hidden"]:
    """Another text's latents, but for the last: it carries the next token in a warm start."""
    return torch.cat([shuffled(latents)[:, :, :-1], latents[:, :, -1:]], dim=2)
