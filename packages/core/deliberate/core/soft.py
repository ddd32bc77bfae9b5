"""The soft-embedding baseline: latents that are the same whatever the text.

Trained by the same objective and read by the base in the same places, it tells how much of a
coprocessor's gain comes from what it read.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deliberate.core.base import Base
from deliberate.core.cache import Reading
from deliberate.core.coprocessor import Coprocessor, CoprocessorConfig


class SoftEmbedding(Coprocessor):
    """Trained embeddings instead of latents."""

    baseline = "soft embedding"

    embedding: nn.Parameter
    """The latents themselves: (latents, hidden)."""

    def __init__(self, config: CoprocessorConfig, base: Base) -> None:
        """Begin at the embeddings of random tokens, as prompt tuning does."""
        super().__init__(config, base)
        token_ids = torch.randint(base.vocab, (config.latents,)).to(base.device)
        self.embedding = nn.Parameter(base.embed(token_ids).clone())

    def forward(
        self, reading: Reading, anchors: Int[Tensor, "batch anchors"]
    ) -> Float[Tensor, "batch anchors latents hidden"]:
        """The same latents after every anchor."""
        return self.embedding.expand(*anchors.shape, -1, -1)

    def soft_parameters(self) -> list[nn.Parameter]:
        """The latents themselves."""
        return [self.embedding]
