"""Controls: latents that are not the right ones, to see whether content is what helps.

A batch's latents are (batch, anchors, latents, hidden), one text a row; a row's partner is a row
of another text where the batch has one.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


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
