"""Groups: many anchors of one text in a single pass, and who sees whom.

    text      x0 x1 x2 x3 x4 ...
    anchor 1 -> group [z z z x2 x3]   sees x0..x1 and itself
    anchor 3 -> group [z z z x4 x5]   sees x0..x3 and itself

The paper lays the text and all groups out as one sequence under a dense mask (section 2.3,
figure 2). Here the text is read once and shared, and only the groups go through the model.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

Positions = Literal["after", "over"]
"""Where latents stand: `after` the anchor, moving the text on, or `over` its last tokens."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Equally long groups of tokens that read a text and, within a group, one another."""

    last_seen: Int[Tensor, "batch anchors"]
    """Index of the last text token that a group sees; -1 sees none."""

    size: int
    """Tokens in each group."""

    causal: bool
    """Whether a token sees the earlier ones of its group; otherwise itself alone."""

    @cached_property
    def bounds(self) -> list[list[int]]:
        """`last_seen` as numbers, read off the device once and not once a layer."""
        return self.last_seen.tolist()

    @cached_property
    def places(self) -> Int[Tensor, "batch anchors size"]:
        """Index of each token in its own sequence [text, group]; sliding windows count these."""
        first = self.last_seen[..., None] + 1
        steps = torch.arange(self.size, device=first.device)
        return first + (steps if self.causal else torch.zeros_like(steps))

    @cached_property
    def kept(self) -> dict[Any, Any]:
        """What one layer's attention worked out from these groups, for the next layer to find."""
        return {}


def latent_positions(
    anchors: Int[Tensor, "batch anchors"], *, latents: int, positions: Positions
) -> Int[Tensor, "batch anchors latents"]:
    """Position ids of the latents in the base's pass."""
    steps = torch.arange(1, latents + 1, device=anchors.device)
    shift = latents if positions == "over" else 0
    return (anchors[..., None] + steps - shift).clamp(min=0)


def ahead_positions(
    anchors: Int[Tensor, "batch anchors"], *, latents: int, ahead: int, positions: Positions
) -> Int[Tensor, "batch anchors ahead"]:
    """Position ids of `ahead` text tokens that follow the latents."""
    steps = torch.arange(1, ahead + 1, device=anchors.device)
    shift = latents if positions == "after" else 0
    return anchors[..., None] + steps + shift


def ahead_tokens(
    token_ids: Int[Tensor, "batch token"], anchors: Int[Tensor, "batch anchors"], *, ahead: int
) -> Int[Tensor, "batch anchors ahead"]:
    """The `ahead` true tokens after each anchor."""
    index = anchors[..., None] + torch.arange(1, ahead + 1, device=anchors.device)
    return token_ids.gather(1, index.flatten(1)).view_as(index)


def last_anchor(length: int, *, latents: int, ahead: int, limit: int | None, delay: int = 0) -> int:
    """The last anchor of a text whose ahead tokens exist and whose group fits the model.

    Args:
        length: Tokens in the text.
        latents: Latents inserted after the anchor.
        ahead: Tokens after the anchor that the loss is taken on.
        limit: The model's positions, if it has a limit.
        delay: Tokens between the anchor and the latents.

    Raises:
        ValueError: no anchor fits.
    """
    last = length - 1 - ahead - delay
    if limit is not None:
        last = min(last, limit - 1 - latents - ahead - delay)
    if last < 0:
        late = f", {delay} tokens late" if delay else ""
        room = "" if limit is None else f" in a model of {limit} positions"
        raise ValueError(
            f"a text of {length} tokens has no room for an anchor with {latents} latents "
            f"and {ahead} ahead tokens{late}{room}"
        )
    return last


def sample_anchors(
    batch: int, *, anchors: int, last: int, generator: torch.Generator
) -> Int[Tensor, "batch anchors"]:
    """Distinct anchors, uniform over 0 to `last`, sorted; all of them if there are fewer."""
    scores = torch.rand(batch, last + 1, generator=generator)
    return scores.topk(min(anchors, last + 1)).indices.sort().values
