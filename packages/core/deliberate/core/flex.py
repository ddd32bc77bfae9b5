"""Grouped attention as torch's flex_attention under a block mask, for CUDA.

    keys [text | all groups] --block mask of who sees whom--> blocks that nobody sees are skipped

The result is that of the two-part form in `grouped_attention.py`; on a CPU flex_attention has no
backward. The text's keys and values are copied once a layer, to stand beside the groups' own.

Source: arXiv:2412.17747, section 2.3 and figure 2, whose future work asks for such kernels.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, no_type_check

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from deliberate.core.groups import Groups


def attend_flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    text_key: Tensor,
    text_value: Tensor,
    *,
    groups: Groups,
    window: int | None,
    scaling: float,
    softcap: float | None,
) -> Tensor:
    """Attention of groups over a text and over themselves.

    Args:
        query: (batch, heads, anchors * size, head_dim).
        key: (batch, kv_heads, anchors * size, head_dim).
        value: Likewise.
        text_key: (batch, kv_heads, token, head_dim).
        text_value: Likewise.
        groups: Who sees whom.
        window: Places that a token sees back, itself included; None for all.
        scaling: Of the products.
        softcap: Bound of the scores, if they have one.

    Returns:
        (batch, heads, anchors * size, head_dim).
    """
    call = _compiled() if query.is_cuda else flex_attention
    return call(
        query,
        torch.cat([text_key, key], dim=2),
        torch.cat([text_value, value], dim=2),
        score_mod=None if softcap is None else _capped(softcap),
        block_mask=_block_mask(groups, text_key.shape[2], window),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )


# flex_attention counts the parameters of what it is given, which a shape check would hide.


def _capped(softcap: float) -> Callable[..., Tensor]:
    @no_type_check
    def capped(score: Tensor, batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        return torch.tanh(score / softcap) * softcap

    return capped


@lru_cache(maxsize=1)
def _compiled() -> Any:
    return torch.compile(flex_attention)


def _block_mask(groups: Groups, tokens: int, window: int | None) -> BlockMask:
    """Who sees whom, made once for all layers of one pass."""
    made = groups.kept.get((tokens, window))
    if made is None:
        made = groups.kept[tokens, window] = _make_block_mask(groups, tokens, window)
    return made


def _make_block_mask(groups: Groups, tokens: int, window: int | None) -> BlockMask:
    last_seen, places, size = groups.last_seen, groups.places, groups.size

    @no_type_check
    def sees(batch: Tensor, head: Tensor, row: Tensor, column: Tensor) -> Tensor:
        group, step = row // size, row % size
        in_text = column < tokens
        own = column - tokens
        same = ~in_text & (own // size == group)
        seen_text = in_text & (column <= last_seen[batch, group])
        seen_own = same & ((own <= row) if groups.causal else (own == row))
        if window is not None:
            # Distances in [text, group]; a token that stands alone is at the group's first place.
            seen_text &= places[batch, group, step] - column < window
            if groups.causal:
                seen_own &= row - own < window
        return seen_text | seen_own

    batch, anchors = last_seen.shape
    rows = anchors * size
    return create_block_mask(sees, batch, None, rows, tokens + rows, device=last_seen.device)
