"""An augmented cache as input embeddings, for a program that reads those and no cache.

    Cache --embed(text), latents--> [embed(x) | z] --the frozen model, anywhere--> the same answer

Source: arXiv:2412.17747, section 2.3: latents enter as input embeddings.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from deliberate.core.base import Base
from deliberate.core.cache import Cache
from deliberate.core.errors import CacheError, UnsupportedModelError

_LOOKED_AT = 256
"""Tokens by whose embeddings the embedding layer's own scale is measured."""


@torch.no_grad()
def input_embeds(
    base: Base, cache: Cache, *, unscaled: bool = False
) -> Float[Tensor, "place hidden"]:
    """The embeddings of a text and its latents, one place each, in the cache's numbers.

    Read from position 0 on, they give the model what the cache gives it: only where latents have
    positions of their own, which is `positions: after`.

    Args:
        base: Made the cache.
        cache: With latents; text that was read after them comes after them here.
        unscaled: Divide by what the base's embedding layer multiplies its rows by, for a program
            that multiplies whatever embeddings it is given.

    Raises:
        CacheError: the cache has no latents, or latents over the text's positions.
        UnsupportedModelError: the embedding layer does not just multiply its rows.
    """
    if cache.latents is None:
        raise CacheError("the cache has no latents: `deliberate augment` writes them")
    if not cache.position_ids.equal(torch.arange(len(cache.position_ids)).to(cache.position_ids)):
        raise CacheError(
            "its latents have positions of the text (positions: over), which embeddings cannot "
            "say: use a coprocessor with positions: after"
        )
    text, after = cache.token_ids.split([len(cache.token_ids) - cache.followed, cache.followed])
    embeds = torch.cat([base.embed(text), cache.latents, base.embed(after)])
    return embeds / embedding_scale(base) if unscaled else embeds


@torch.no_grad()
def embedding_scale(base: Base) -> float:
    """What the base's embedding layer multiplies its rows by; 1 where it looks them up.

    Gemma's layer multiplies by the root of the hidden size. What a model multiplies all embeddings
    by, given ones too, as Granite does, is no part of this.

    Raises:
        UnsupportedModelError: the layer does something else to its rows.
    """
    rows = base.embedding_rows(min(_LOOKED_AT, base.vocab))
    given = base.embed(torch.arange(len(rows), device=rows.device)).float()
    looked_up = rows.float()
    ratio = (given * looked_up).sum() / looked_up.square().sum()
    scale = float(ratio.to(rows.dtype))  # the layer's own constant is in the same numbers
    if not given.allclose(looked_up * scale, rtol=0.02, atol=1e-6):
        raise UnsupportedModelError(
            f"the embedding layer of {base.id!r} does not just multiply its rows: embeddings "
            "cannot be given to a program that does the rest; leave them scaled"
        )
    return scale
