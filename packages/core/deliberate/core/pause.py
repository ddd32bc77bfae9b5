"""The pause-token baseline: one trained embedding, repeated.

Source: arXiv:2412.17747, table 3. Whether the paper's base was frozen is not said there; here it
is, so that the budget is that of the other kinds.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deliberate.core.base import Base
from deliberate.core.cache import Reading
from deliberate.core.coprocessor import Coprocessor, CoprocessorConfig


class PauseToken(Coprocessor):
    """The same trained embedding in place of every latent."""

    baseline = "pause token"

    embedding: nn.Parameter
    """The pause: (1, hidden)."""

    def __init__(self, config: CoprocessorConfig, base: Base) -> None:
        """Begin at the embedding of a random token."""
        super().__init__(config, base)
        token_ids = torch.randint(base.vocab, (1,)).to(base.device)
        self.embedding = nn.Parameter(base.embed(token_ids).clone())

    def forward(
        self, reading: Reading, anchors: Int[Tensor, "batch anchors"]
    ) -> Float[Tensor, "batch anchors latents hidden"]:
        """The pause, repeated after every anchor."""
        return self.embedding.expand(*anchors.shape, self.config.latents, -1)

    def soft_parameters(self) -> list[nn.Parameter]:
        """The pause."""
        return [self.embedding]
