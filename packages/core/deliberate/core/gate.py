"""The gate: which caches are asked for latents, by how unsure the base is of the next token.

    last hidden state --head--> the next token's chances --entropy--> at least so much: ask

The last hidden state at the anchor is there before anything is asked, in a reading as in a cache
file (`last_hidden`): the gate costs one product with the head.

Source: the abstract of arXiv:2412.17747, by which a cache may be deemed not to require extra
computation. It does not say how, and always asks; this signal is ours.
"""

from typing import overload

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deliberate.core.ahead_loss import rows_at_once
from deliberate.core.base import Base


@torch.no_grad()
def entropy(base: Base, hidden: Float[Tensor, "*shape hidden"]) -> Float[Tensor, "*shape"]:
    """How unsure the base is of the token after each last hidden state, in nats and fp32.

    Args:
        base: Whose head it goes through, in chunks so that not all logits are held at once.
        hidden: Last hidden states, as in `Cache.last_hidden`.
    """
    chunks = hidden.reshape(-1, hidden.shape[-1]).split(rows_at_once(base))
    return torch.cat([_of_chunk(base, chunk) for chunk in chunks]).view(hidden.shape[:-1])


@overload
def asks(entropy: float, threshold: float) -> bool: ...
@overload
def asks(entropy: np.ndarray, threshold: float) -> np.ndarray: ...
def asks(entropy: float | np.ndarray, threshold: float) -> bool | np.ndarray:
    """Whether a cache is asked for latents.

    Args:
        entropy: Of the next token, in nats; of several caches each is told.
        threshold: The least for which they are asked.
    """
    return entropy >= threshold


def _of_chunk(base: Base, hidden: Tensor) -> Tensor:
    chances = base.logits(hidden).softmax(-1, dtype=torch.float32)
    return torch.special.entr(chances).sum(-1)
