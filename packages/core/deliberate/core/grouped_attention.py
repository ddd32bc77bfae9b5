"""Attention of groups over a shared text and over themselves, in two parts and one softmax.

    scores = [query . text keys | query . own keys] --softmax--> [P text | P own] --> output

The text's keys and values are handed to the model's attention as keyword arguments, so no
model's code changes and nothing of the text is recomputed or copied per group. Attention
runs in chunks of at most `CHUNK_SCORES` scores, and the backward recomputes each chunk's
probabilities: beyond its inputs, its output and their gradients it holds at most
`WORKING_COPIES` buffers of that many 4-byte numbers, over forward and backward alike.

Source: arXiv:2412.17747, section 2.3 and figure 2; the two parts are ours.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from deliberate.core.errors import UnsupportedModelError
from deliberate.core.groups import Groups

CHUNK_SCORES = 1 << 20
"""Most scores computed at once; a chunk never holds less than one group of one text."""

WORKING_COPIES = 6
"""Most buffers of one chunk's size alive at a time, measured by a test."""

_NAME = "deliberate_grouped"


def grouped_forward(
    trunk: PreTrainedModel,
    embeds: Float[Tensor, "batch anchors size hidden"],
    *,
    groups: Groups,
    position_ids: Int[Tensor, "batch anchors size"],
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
) -> Float[Tensor, "batch anchors size hidden"]:
    """Run groups of input embeddings through a decoder that reads a shared text.

    Args:
        trunk: A decoder without head; its attention setting is changed for this call.
        embeds: Input embeddings of the groups' tokens.
        groups: Who sees whom.
        position_ids: The tokens' position ids.
        keys: The text's keys, one a layer, (batch, kv_heads, token, head_dim).
        values: Likewise.

    Returns:
        The last hidden states.

    Raises:
        UnsupportedModelError: the model's attention asks for what groups cannot give.
    """
    with _grouped_attention(trunk):
        output = trunk(
            inputs_embeds=embeds.flatten(1, 2),
            position_ids=position_ids.flatten(1),
            use_cache=False,
            groups=groups,
            text_keys=keys,
            text_values=values,
        )
    return output.last_hidden_state.unflatten(1, embeds.shape[1:3])


@contextmanager
def _grouped_attention(trunk: PreTrainedModel) -> Iterator[None]:
    AttentionInterface.register(_NAME, _attend)
    before = trunk.config._attn_implementation
    trunk.config._attn_implementation = _NAME
    try:
        yield
    finally:
        trunk.config._attn_implementation = before


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # None: there is no mask function under our name
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    groups: Groups,
    text_keys: Sequence[Tensor],
    text_values: Sequence[Tensor],
    **others: Any,  # noqa: ANN401
) -> tuple[Tensor, None]:
    """The attention function that transformers calls in each layer."""
    if others.get("s_aux") is not None:
        raise UnsupportedModelError(
            f"{type(module).__name__} has attention sinks, which grouped attention does not have"
        )
    layer = module.layer_idx
    text_key, text_value = text_keys[layer], text_values[layer]
    dtype = text_key.dtype
    output = _GroupedAttention.apply(
        query.to(dtype),
        key.to(dtype),
        value.to(dtype),
        text_key,
        text_value,
        groups,
        query.shape[-1] ** -0.5 if scaling is None else scaling,
        sliding_window,
        softcap,
    )
    return output.transpose(1, 2), None


class _Chunk:
    """A run of groups of one text, and the stretch of text that any of them sees."""

    def __init__(self, row: int, run: slice, groups: Groups, window: int | None) -> None:
        self.row, self.run = row, run
        bounds = groups.bounds[row][run]
        begin = 0 if window is None else max(0, min(bounds) - window + 2)
        self.text = slice(begin, max(max(bounds) + 1, begin))
        self.hidden_text = self._hidden_text(groups, window, bounds)

    def _hidden_text(self, groups: Groups, window: int | None, bounds: list[int]) -> Tensor | None:
        """Mask (groups, size or 1, text), or none where everything is seen."""
        if window is None and min(bounds) == max(bounds):
            return None
        device = groups.last_seen.device
        index = torch.arange(self.text.start, self.text.stop, device=device)
        hidden = index > groups.last_seen[self.row, self.run, None, None]
        if window is not None:
            hidden = hidden | (groups.places[self.row, self.run, :, None] - index >= window)
        return hidden


def _chunks(groups: Groups, heads: int, text: int, window: int | None) -> Iterator[_Chunk]:
    rows, anchors = groups.last_seen.shape
    run = max(1, CHUNK_SCORES // (heads * groups.size * (text + groups.size)))
    for row in range(rows):
        for start in range(0, anchors, run):
            yield _Chunk(row, slice(start, start + run), groups, window)


def _hidden_own(groups: Groups, window: int | None, device: torch.device) -> Tensor:
    """Mask (size, size) of the tokens of its own group that a token does not see."""
    ones = torch.ones(groups.size, groups.size, dtype=torch.bool, device=device)
    if not groups.causal:
        return ~torch.eye(groups.size, dtype=torch.bool, device=device)
    hidden = ones.triu(1)
    return hidden if window is None else hidden | ones.tril(-window)


def _by_text(grouped: Tensor) -> Tensor:
    """(kv_heads, share, groups, size, d) as one block of rows a key-value head."""
    return grouped.flatten(1, 3)


def _by_group(grouped: Tensor) -> Tensor:
    """(kv_heads, share, groups, size, d) as one block of rows a key-value head and group."""
    return grouped.transpose(1, 2).flatten(2, 3).flatten(0, 1)


def _from_group(blocks: Tensor, shape: torch.Size) -> Tensor:
    """Undo `_by_group`; `shape` is (kv_heads, share, groups, size)."""
    heads, share, groups, size = shape
    return blocks.view(heads, groups, share, size, -1).transpose(1, 2)


class _GroupedAttention(torch.autograd.Function):
    """Softmax attention over text and own group; the text gets no gradient."""

    @staticmethod
    def forward(ctx, query, key, value, text_key, text_value, groups, scaling, window, softcap):  # noqa: ANN001, ANN205
        batch, heads, _, width = query.shape
        kv_heads = key.shape[1]
        ctx.settings = groups, scaling, window, softcap
        grouped = (batch, kv_heads, heads // kv_heads, -1, groups.size, width)
        own = (batch, kv_heads, -1, groups.size, width)
        query, key, value = query.reshape(grouped), key.reshape(own), value.reshape(own)
        output = torch.empty_like(query)
        for chunk in _chunks(groups, heads, text_key.shape[2], window):
            probabilities, _ = _probabilities(chunk, query, key, text_key, *ctx.settings)
            text, inner = _split(probabilities.to(value.dtype), chunk)
            values = text_value[chunk.row, :, chunk.text]
            part = torch.bmm(_by_text(text), values).view(*text.shape[:-1], width)
            blocks = torch.bmm(_by_group(inner), value[chunk.row, :, chunk.run].flatten(0, 1))
            output[chunk.row, :, :, chunk.run] = part + _from_group(blocks, text.shape[:-1])
        ctx.save_for_backward(query, key, value, text_key, text_value, output)
        return output.view(batch, heads, -1, width)

    @staticmethod
    def backward(ctx, grad_output):  # noqa: ANN001, ANN205
        query, key, value, text_key, text_value, output = ctx.saved_tensors
        groups, scaling, window, softcap = ctx.settings
        grad_output = grad_output.reshape(output.shape)
        grads = [torch.empty_like(tensor) for tensor in (query, key, value)]
        heads = query.shape[1] * query.shape[2]
        for chunk in _chunks(groups, heads, text_key.shape[2], window):
            at_query, at_own = (chunk.row, slice(None), slice(None), chunk.run), (
                chunk.row,
                slice(None),
                chunk.run,
            )
            probabilities, slope = _probabilities(chunk, query, key, text_key, *ctx.settings)
            upstream = grad_output[at_query]
            shape = upstream.shape[:-1]
            upstream_groups = _by_group(upstream)
            own_value, own_key = value[at_own].flatten(0, 1), key[at_own].flatten(0, 1)
            _, inner = _split(probabilities.to(value.dtype), chunk)
            grads[2][at_own] = torch.bmm(_by_group(inner).mT, upstream_groups).view_as(value[at_own])

            grad_scores = torch.empty_like(probabilities)
            grad_text, grad_inner = _split(grad_scores, chunk)
            values = text_value[chunk.row, :, chunk.text]
            grad_text.copy_(torch.bmm(_by_text(upstream), values.mT).view(grad_text.shape))
            grad_inner.copy_(_from_group(torch.bmm(upstream_groups, own_value.mT), shape))
            row_mean = (upstream.float() * output[at_query].float()).sum(-1, keepdim=True)
            grad_scores.sub_(row_mean).mul_(probabilities).mul_(scaling)
            if slope is not None:
                grad_scores.mul_(slope)

            text, inner = _split(grad_scores.to(query.dtype), chunk)
            keys = text_key[chunk.row, :, chunk.text]
            part = torch.bmm(_by_text(text), keys).view_as(upstream)
            inner = _by_group(inner)
            grads[0][at_query] = part + _from_group(torch.bmm(inner, own_key), shape)
            grads[1][at_own] = torch.bmm(inner.mT, _by_group(query[at_query])).view_as(key[at_own])
        flat = grad_output.shape[0], -1, groups.size * groups.last_seen.shape[1], query.shape[-1]
        return (*(grad.view(flat) for grad in grads), None, None, None, None, None, None)


def _probabilities(
    chunk: _Chunk,
    query: Tensor,
    key: Tensor,
    text_key: Tensor,
    groups: Groups,
    scaling: float,
    window: int | None,
    softcap: float | None,
) -> tuple[Tensor, Tensor | None]:
    """One chunk's attention in fp32, (kv_heads, share, groups, size, text + size).

    Returns:
        The probabilities, and the slope of the softcap where there is one.
    """
    asked = query[chunk.row, :, :, chunk.run]
    keys = text_key[chunk.row, :, chunk.text]
    scores = asked.new_empty(*asked.shape[:-1], keys.shape[1] + groups.size, dtype=torch.float32)
    text, inner = _split(scores, chunk)
    text.copy_(torch.bmm(_by_text(asked), keys.mT).view(text.shape))
    own_key = key[chunk.row, :, chunk.run].flatten(0, 1)
    inner.copy_(_from_group(torch.bmm(_by_group(asked), own_key.mT), asked.shape[:-1]))
    scores.mul_(scaling)
    slope = None
    if softcap is not None:
        scores.div_(softcap).tanh_()
        slope = 1 - scores.square()
        scores.mul_(softcap)
    if chunk.hidden_text is not None:
        text.masked_fill_(chunk.hidden_text, -torch.inf)
    inner.masked_fill_(_hidden_own(groups, window, scores.device), -torch.inf)
    return torch.softmax(scores, dim=-1), slope


def _split(scores: Tensor, chunk: _Chunk) -> tuple[Tensor, Tensor]:
    text = chunk.text.stop - chunk.text.start
    return scores[..., :text], scores[..., text:]
