"""What the base would choose at each token after an anchor, the true ones before it given.

    last hidden states --head--> logits --likeliest--> tokens

Where all of an answer's tokens are the base's choices, decoding greedily gives that answer.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deliberate.core.ahead_loss import ahead_hidden, rows_at_once
from deliberate.core.base import Base
from deliberate.core.cache import Reading
from deliberate.core.groups import Positions


def ahead_choices(
    base: Base,
    reading: Reading,
    anchors: Int[Tensor, "batch anchors"],
    latents: Float[Tensor, "batch anchors latents hidden"],
    *,
    ahead: int,
    positions: Positions,
) -> Int[Tensor, "batch anchors ahead"]:
    """The likeliest token at each of the `ahead` places after each anchor, given its latents.

    Args:
        base: Reads latents and ahead tokens.
        reading: The texts, with at least `ahead` tokens after each anchor.
        anchors: Index of the last token that each group's latents know.
        latents: What is read after each anchor.
        ahead: How many tokens are chosen.
        positions: Where the latents stand.
    """
    hidden = ahead_hidden(base, reading, anchors, latents, ahead=ahead, positions=positions)
    return _likeliest(base, hidden)


def plain_choices(
    base: Base, reading: Reading, anchors: Int[Tensor, "batch anchors"], *, ahead: int
) -> Int[Tensor, "batch anchors ahead"]:
    """The base's own choices at the same places without latents.

    Raises:
        ValueError: the reading was loaded and not read just now.
    """
    if reading.hidden is None:
        raise ValueError("the reading has no last hidden states: read the text with `Base.read`")
    index = anchors[..., None] + torch.arange(ahead, device=anchors.device)
    rows = torch.arange(len(anchors), device=anchors.device)[:, None, None]
    return _likeliest(base, reading.hidden[rows, index])


def _likeliest(base: Base, hidden: Float[Tensor, "*shape hidden"]) -> Int[Tensor, "*shape"]:
    """The likeliest token of each, in chunks so that not all logits are held at once."""
    chunks = hidden.flatten(0, -2).split(rows_at_once(base))
    parts = [base.logits(chunk).argmax(-1) for chunk in chunks]
    return torch.cat(parts).view(hidden.shape[:-1])
