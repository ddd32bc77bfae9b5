"""What coprocessors with a decoder of their own, or a share of the base's, have in common.

    soft tokens --decoder, reading the text's keys and values--> hidden states --scale--> latents

Source: arXiv:2412.17747, section 2.2. The paper does not say what the soft tokens are at the
start, nor which hidden state becomes a latent: here both are settings, see `CoprocessorConfig`.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from deliberate.core.base import Base, residual_scale
from deliberate.core.cache import Reading
from deliberate.core.coprocessor import Coprocessor, CoprocessorConfig, LatentScale
from deliberate.core.grouped_forward import grouped_forward
from deliberate.core.groups import Groups

_SOFT_TOKEN_NOISE = 0.02  # of the embeddings' own size: families differ in it by fifty times
_CALIBRATION_TOKENS = 256  # random tokens: enough for a median that a trained scalar corrects


class TrunkCoprocessor(Coprocessor):
    """Writes latents with a decoder that reads soft tokens after the text."""

    trunk: PreTrainedModel
    """The decoder that the soft tokens go through."""

    soft_tokens: nn.Parameter
    """The question put to the cache: (latents, hidden)."""

    def __init__(self, config: CoprocessorConfig, base: Base) -> None:
        """Make the decoder, the soft tokens and the scale of the latents."""
        super().__init__(config, base)
        self.make_decoder(base)
        vocabulary = base.embed(torch.arange(base.vocab, device=base.device)).float()
        size = vocabulary.square().mean().sqrt()
        noise = torch.randn(config.latents, base.hidden).to(base.device)
        noise *= _SOFT_TOKEN_NOISE * size
        center = vocabulary.mean(0) if config.soft_input == "free" else 0.0
        self.soft_tokens = nn.Parameter((center + noise).to(base.model.dtype))
        start = _scale_start(config, base, size)
        self.scale = LatentScale(start).to(base.device)

    @abstractmethod
    def make_decoder(self, base: Base) -> None:
        """Make what the soft tokens go through, by the configuration that is set.

        Raises:
            UnsupportedModelError: the base lacks what the configuration asks of it.
        """

    @abstractmethod
    def last_hidden(
        self,
        embeds: Float[Tensor, "batch anchors latents hidden"],
        *,
        groups: Groups,
        reading: Reading,
    ) -> Float[Tensor, "batch anchors latents hidden"]:
        """The decoder's last hidden states, after or before its final norm as is set.

        Args:
            embeds: Soft tokens, as input embeddings.
            groups: Who sees whom.
            reading: Texts as the base read them.
        """

    def through(
        self,
        embeds: Float[Tensor, "batch anchors latents hidden"],
        *,
        groups: Groups,
        keys: Sequence[Tensor],
        values: Sequence[Tensor],
        inside: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> Float[Tensor, "batch anchors latents hidden"]:
        """Run soft tokens through the decoder; arguments are those of `grouped_forward`."""
        return grouped_forward(
            self.trunk,
            embeds,
            groups=groups,
            # A token's place in its sequence is its position; alone, it stands at the anchor.
            position_ids=groups.places,
            keys=keys,
            values=values,
            execution=self.execution,
            inside=inside,
        )

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
        return self.scale(self.last_hidden(soft, groups=groups, reading=reading))

    def soft_parameters(self) -> list[nn.Parameter]:
        """The soft tokens."""
        return [self.soft_tokens]


def _scale_start(config: CoprocessorConfig, base: Base, size: Tensor) -> float | None:
    """What the latents' root mean square starts at; `size` is that of the input embeddings."""
    if config.latent_norm == "embedding":
        return config.latent_scale * float(size)
    if config.latent_scale == 1:
        return None
    length = min(_CALIBRATION_TOKENS, base.positions or _CALIBRATION_TOKENS)
    generator = torch.Generator().manual_seed(0)
    token_ids = torch.randint(base.vocab, (1, length), generator=generator).to(base.device)
    return config.latent_scale * residual_scale(base, token_ids)
