"""The base trained on, as the baseline that reviewers ask for: no latents, the same targets.

    text --copy of the base, with gradient--> losses at the tokens after each anchor

It is the one kind that may change weights of a base, and it changes those of a copy.

Source: arXiv:2412.17747, whose ICML version reports that continued training makes no difference.
"""

import copy
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from deliberate.core.adapters import without_adapters
from deliberate.core.ahead_loss import at_anchors, rows_at_once
from deliberate.core.base import Base
from deliberate.core.cache import Reading
from deliberate.core.coprocessor import Coprocessor, CoprocessorConfig
from deliberate.core.errors import DeliberateError


class ContinuedBase(Coprocessor):
    """A copy of the base, embedding and head included, that learns."""

    writes_latents = False
    reads_caches = False
    text_flops = 6

    def __init__(self, config: CoprocessorConfig, base: Base) -> None:
        """Copy the base."""
        super().__init__(config, base)
        model = without_adapters(copy.deepcopy(base.model))
        self._copy = replace(base, model=model, id=f"{base.id} trained on")
        self.model = model.requires_grad_(requires_grad=True)

    def forward(
        self, reading: Reading, anchors: Int[Tensor, "batch anchors"]
    ) -> Float[Tensor, "batch anchors latents hidden"]:
        """There are none to write.

        Raises:
            DeliberateError: always.
        """
        raise DeliberateError(
            "kind 'continued' is the base trained on and writes no latents: measure it with "
            "`deliberate eval`, or augment with another kind, such as full"
        )

    def answering(self, base: Base) -> Base:
        """The copy, which stands in the base's place."""
        return self._copy

    def losses(
        self,
        base: Base,
        reading: Reading,
        anchors: Int[Tensor, "batch anchors"],
        *,
        ahead: int,
        delay: int = 0,
        latents: Float[Tensor, "batch anchors latents hidden"] | None = None,
    ) -> Float[Tensor, "batch anchors ahead"]:
        """The copy's loss at the same tokens, from its own reading of the text.

        Raises:
            DeliberateError: there are latents, which it never wrote.
        """
        if latents is not None:
            self(reading, anchors)
        token_ids = reading.token_ids
        position_ids = torch.arange(token_ids.shape[1], device=token_ids.device)
        hidden = self._copy.trunk(
            input_ids=token_ids, position_ids=position_ids.expand_as(token_ids), use_cache=False
        ).last_hidden_state[:, :-1]
        rows = rows_at_once(base)
        parts = zip(
            hidden.flatten(0, 1).split(rows), token_ids[:, 1:].flatten().split(rows), strict=True
        )
        losses = [checkpoint(self._loss, *part, use_reentrant=False) for part in parts]
        return at_anchors(torch.cat(losses).view(hidden.shape[:2]), anchors + delay, ahead=ahead)

    def _loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(self._copy.logits(hidden).float(), targets, reduction="none")
