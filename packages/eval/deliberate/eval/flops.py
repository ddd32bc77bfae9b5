"""FLOPs of asking for latents and of reading them: those that the base alone does not have.

    soft tokens --coprocessor: 2 P + attention--> latents --base: 2 P + attention--> augmented cache

Two for each weight that a token is multiplied by, and two for each number of each query's
products with the keys and values there are. Norms, activations, position tables, softmax and
embeddings are left out, and so is what decoded tokens pay for having latents to look at.
"""

from collections.abc import Iterable

from torch import nn

from deliberate.core.base import Base
from deliberate.core.cache import Cache
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.trunk_coprocessor import TrunkCoprocessor


def extra_flops(base: Base, coprocessor: Coprocessor, plain: Cache) -> int:
    """FLOPs of writing latents after one text, and of the base's reading them.

    A sliding window is not heeded: where the text is longer, these are somewhat more than are
    computed.

    Args:
        base: Made the cache, and would read the latents.
        coprocessor: Would write them; none are counted for a kind that does not.
        plain: The text's cache; its tokens and widths count, not its numbers.
    """
    if not coprocessor.writes_latents:
        return 0
    latents, tokens = coprocessor.config.latents, len(plain.token_ids)
    layers = range(len(plain.keys))
    reading = _products(_multiplied(base.trunk)) * latents
    reading += _attention(base, plain, layers, new=latents, seen=tokens)
    if not isinstance(coprocessor, TrunkCoprocessor):
        return reading
    own = _products(_multiplied(coprocessor.trunk, coprocessor))
    layers = coprocessor.config.layers or layers
    # A soft token that stands in the last token's place does not see that one.
    seen = tokens - (coprocessor.config.soft_input == "last_token")
    writing = own * latents + _attention(base, plain, layers, new=latents, seen=seen)
    if coprocessor.text_flops:
        writing += own * tokens + _attention(base, plain, layers, new=tokens, seen=0)
    return reading + writing


def _multiplied(trunk: nn.Module, coprocessor: Coprocessor | None = None) -> list[int]:
    """How many weights of each matrix a token is multiplied by, the coprocessor's own included.

    Args:
        trunk: A decoder; low-rank weights that stand in it are somebody else's.
        coprocessor: Whose own weights count besides.
    """
    looked_up = {
        id(weight)
        for part in trunk.modules()
        if isinstance(part, nn.Embedding)
        for weight in part.parameters()
    }
    weights = {
        id(weight): weight for name, weight in trunk.named_parameters() if ".lora_" not in name
    }
    if coprocessor is not None:
        weights |= {id(weight): weight for weight in coprocessor.parameters()}
        looked_up |= {id(weight) for weight in coprocessor.soft_parameters()}
    # Of experts, which are joined in one tensor, a token meets some.
    experts = getattr(trunk.config, "num_experts_per_tok", None) or 1
    return [
        weight.numel() if weight.ndim == 2 else weight[0].numel() * experts
        for key, weight in weights.items()
        if weight.ndim >= 2 and key not in looked_up
    ]


def _products(weights: Iterable[int]) -> int:
    """FLOPs of one token's products with weights."""
    return 2 * sum(weights)


def _attention(base: Base, plain: Cache, layers: Iterable[int], *, new: int, seen: int) -> int:
    """FLOPs of scores and of sums of values, of new tokens over those there are and themselves."""
    widths = sum(plain.keys[at].shape[-1] + plain.values[at].shape[-1] for at in layers)
    heads: int = base.model.config.num_attention_heads
    return 2 * heads * widths * new * (seen + new)
