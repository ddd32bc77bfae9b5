"""The paper's coprocessor: a full copy of the base's decoder, reading its cache.

Source: arXiv:2412.17747, section 2.2 (architecture and initialisation). The paper does not
say what the soft tokens are at the start, nor which hidden state becomes a latent: here both
are settings, see `CoprocessorConfig`.
"""

import copy

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from deliberate.core.base import Base, final_norm, residual_scale
from deliberate.core.cache import Reading
from deliberate.core.coprocessor import Coprocessor, CoprocessorConfig, LatentScale
from deliberate.core.grouped_attention import grouped_forward
from deliberate.core.groups import Groups

_SOFT_TOKEN_NOISE = 0.02  # of the embeddings' own size: families differ in it by fifty times
_CALIBRATION_TOKENS = 256  # random tokens: enough for a median that a trained scalar corrects


class FullCoprocessor(Coprocessor):
    """A decoder of the base's architecture that starts as the base itself."""

    soft_tokens: nn.Parameter
    """The question put to the cache: (latents, hidden)."""

    def __init__(self, config: CoprocessorConfig, base: Base) -> None:
        """Copy the base's decoder, without its embedding and head.

        Raises:
            UnsupportedModelError: `latent_norm` is `before` and the base has no single final norm.
        """
        super().__init__(config)
        self.trunk = _copy_of(base.trunk)
        if config.latent_norm == "before":
            self.trunk.set_submodule(final_norm(self.trunk), nn.Identity())
        vocabulary = base.embed(torch.arange(base.vocab, device=base.device)).float()
        noise = torch.randn(config.latents, base.hidden).to(base.device)
        noise *= _SOFT_TOKEN_NOISE * vocabulary.square().mean().sqrt()
        center = vocabulary.mean(0) if config.soft_input == "free" else 0.0
        self.soft_tokens = nn.Parameter((center + noise).to(base.model.dtype))
        self.scale = LatentScale(_scale_start(config, base)).to(base.device)

    def forward(
        self, reading: Reading, anchors: Int[Tensor, "batch anchors"]
    ) -> Float[Tensor, "batch anchors latents hidden"]:
        """Write latents: the last hidden states at the soft tokens."""
        batch, count = anchors.shape
        soft = self.soft_tokens.expand(batch, count, -1, -1)
        if self.config.soft_input == "last_token":
            index = anchors[..., None].expand(-1, -1, reading.embeds.shape[-1])
            soft = soft + reading.embeds.gather(1, index)[:, :, None]
            groups = Groups(anchors - 1, self.config.latents, causal=False)
        else:
            groups = Groups(anchors, self.config.latents, causal=True)
        hidden = grouped_forward(
            self.trunk,
            soft,
            groups=groups,
            # A token's place in its sequence is its position; alone, it stands at the anchor.
            position_ids=groups.places,
            keys=reading.keys,
            values=reading.values,
            execution=self.execution,
        )
        return self.scale(hidden)

    def soft_parameters(self) -> list[nn.Parameter]:
        """The soft tokens."""
        return [self.soft_tokens]


def _copy_of(trunk: PreTrainedModel) -> PreTrainedModel:
    """A trainable copy of a decoder, without its input embedding."""
    embedding = trunk.get_input_embeddings()
    twin = copy.deepcopy(trunk, {id(embedding): None})
    # No dropout, as in the base: the latents of a text are a function of the text.
    return twin.requires_grad_(requires_grad=True).eval()


def _scale_start(config: CoprocessorConfig, base: Base) -> float | None:
    if config.latent_scale == 1:
        return None
    length = min(_CALIBRATION_TOKENS, base.positions or _CALIBRATION_TOKENS)
    generator = torch.Generator().manual_seed(0)
    token_ids = torch.randint(base.vocab, (1, length), generator=generator).to(base.device)
    return config.latent_scale * residual_scale(base, token_ids)
