"""The objective: how well the base predicts the tokens after an anchor.

    [latents, x(p+1) .. x(p+A-1)] --base--> logits of x(p+1) .. x(p+A) --> loss by token ahead

The last latent predicts the first ahead token. Training averages these losses; evaluation
reports them token by token.

Source: arXiv:2412.17747, sections 2.2 and 2.3, equation 2.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from deliberate.core.base import Base
from deliberate.core.cache import Reading
from deliberate.core.grouped_attention import grouped_forward
from deliberate.core.groups import (
    Groups,
    Positions,
    ahead_positions,
    ahead_tokens,
    latent_positions,
)

LOGITS_AT_ONCE = 1 << 25
"""Most logits held at a time; more are computed in parts, and again in the backward."""


def ahead_losses(
    base: Base,
    reading: Reading,
    anchors: Int[Tensor, "batch anchors"],
    latents: Float[Tensor, "batch anchors latents hidden"],
    *,
    ahead: int,
    positions: Positions,
) -> Float[Tensor, "batch anchors ahead"]:
    """Loss at each of the `ahead` tokens after each anchor, in nats, given its latents.

    Args:
        base: Reads latents and ahead tokens; gradients pass through it to the latents.
        reading: The texts, with at least `ahead` tokens after each anchor.
        anchors: Index of the last token before each group's latents.
        latents: What is read after each anchor.
        ahead: How many tokens after the anchor are predicted.
        positions: Where the latents stand.
    """
    count = latents.shape[2]
    targets = ahead_tokens(reading.token_ids, anchors, ahead=ahead)
    fed = base.embed(targets[..., : ahead - 1])
    position_ids = torch.cat(
        [
            latent_positions(anchors, latents=count, positions=positions),
            ahead_positions(anchors, latents=count, ahead=ahead - 1, positions=positions),
        ],
        dim=-1,
    )
    hidden = grouped_forward(
        base.trunk,
        torch.cat([latents.to(fed.dtype), fed], dim=2),
        groups=Groups(anchors, count + ahead - 1, causal=True),
        position_ids=position_ids,
        keys=reading.keys,
        values=reading.values,
    )
    return token_losses(base, hidden[:, :, count - 1 :], targets)


def plain_losses(
    base: Base, reading: Reading, anchors: Int[Tensor, "batch anchors"], *, ahead: int
) -> Float[Tensor, "batch anchors ahead"]:
    """The base's own loss, in nats, at the same tokens without latents.

    Raises:
        ValueError: the reading was loaded and not read just now.
    """
    if reading.hidden is None:
        raise ValueError("the reading has no last hidden states: read the text with `Base.read`")
    losses = token_losses(base, reading.hidden[:, :-1], reading.token_ids[:, 1:])
    index = anchors[..., None] + torch.arange(ahead, device=anchors.device)
    return losses.gather(1, index.flatten(1)).view_as(index)


def token_losses(
    base: Base, hidden: Float[Tensor, "*shape hidden"], targets: Int[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Loss of each target, in nats and fp32, from last hidden states through the base's head."""
    rows, wanted = hidden.flatten(0, -2), targets.flatten()
    at_once = max(1, LOGITS_AT_ONCE // base.vocab)
    if len(rows) <= at_once:
        return _losses(base, rows, wanted).view(targets.shape)
    parts = [
        checkpoint(
            _losses,
            base,
            rows[start : start + at_once],
            wanted[start : start + at_once],
            use_reentrant=False,
        )
        for start in range(0, len(rows), at_once)
    ]
    return torch.cat(parts).view(targets.shape)


def _losses(base: Base, hidden: Tensor, targets: Tensor) -> Tensor:
    return cross_entropy(base.logits(hidden).float(), targets, reduction="none")
