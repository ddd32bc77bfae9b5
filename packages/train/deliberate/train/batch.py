"""One process's share of a batch: what a forward and backward take."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """Rows of tokens, and where in them the base gets latents."""

    token_ids: Int[Tensor, "batch token"]
    """Rows, padded on the right where some are shorter."""

    anchors: Int[Tensor, "batch anchors"]
    """Index of the last token that each group's latents know."""

    spelled: Int[Tensor, "batch anchors latents"] | None = None
    """Tokens whose input embeddings the latents are drawn to, if they are to any."""

    weights: Float[Tensor, "batch anchors ahead"] | None = None
    """How much each ahead token's loss counts in this share's, which is then their sum; none: the
    share's loss is their mean."""


def moved(numbers: Tensor, device: torch.device) -> Tensor:
    """Numbers on a device, on their way while this process goes on."""
    if device.type == "cuda":
        numbers = numbers.pin_memory()
    return numbers.to(device, non_blocking=True)
