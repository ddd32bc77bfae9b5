"""Attention of groups over a shared text and over themselves, in two parts and one softmax.

    scores = [query . text keys | query . own keys] --softmax--> [P text | P own] --> output

Nothing of the text is recomputed or copied per group. Attention runs in chunks of at most
`CHUNK_SCORES` scores, and the backward recomputes each chunk's probabilities: over forward and
backward alike it holds the groups' queries, keys, values, output and their gradients, each in two
layouts, and beyond these at most `WORKING_COPIES` buffers of `CHUNK_SCORES` 4-byte numbers and,
without a window, one number for each anchor and text token.

Source: arXiv:2412.17747, section 2.3 and figure 2; the two parts are ours.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from deliberate.core.groups import Groups

CHUNK_SCORES = 1 << 19
"""Most scores computed at once; a chunk never holds less than one group of one text.

Of 2^17 to 2^20 the fastest on a CPU: small enough for its caches, and sorted anchors let an
early chunk leave out the text that only later groups see.
"""

WORKING_COPIES = 4
"""Most buffers of one chunk's size alive at a time, measured by a test."""


def attend_in_parts(
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
    """Attention in two parts; arguments and result are those of `flex.attend_flex`."""
    own = (_grouped(part, key.shape[1], groups) for part in (query, key, value))
    output = _GroupedAttention.apply(*own, text_key, text_value, groups, window, scaling, softcap)
    by_head = output.unflatten(3, (-1, groups.size))  # (batch, kv_heads, anchors, share, size, ...)
    return by_head.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _grouped(heads: Tensor, kv_heads: int, groups: Groups) -> Tensor:
    """(batch, heads, anchors * size, head_dim) as (batch, kv_heads, anchors, rows, head_dim).

    A group's rows are the tokens of each head that shares the key-value head.
    """
    by_head = heads.unflatten(1, (kv_heads, -1)).unflatten(3, (-1, groups.size))
    return by_head.transpose(2, 3).flatten(3, 4)


class _Chunk:
    """A run of groups of one text, and the stretch of text that any of them sees."""

    def __init__(
        self, row: int, run: slice, groups: Groups, window: int | None, own_mask: Tensor
    ) -> None:
        self.own_mask = own_mask
        bounds = groups.bounds[row][run]
        begin, end = _stretch(bounds, window)
        self.num_text = end - begin
        self.at = row, slice(None), run
        self.text_at = row, slice(None), slice(begin, end)
        self.text_mask = None
        if window is not None or min(bounds) < max(bounds):
            index = torch.arange(begin, end, device=groups.last_seen.device)
            hidden = index > groups.last_seen[row, run, None, None]
            if window is not None:
                hidden = hidden | (groups.places[row, run, :, None] - index >= window)
            self.text_mask = _additive(hidden)  # (groups, size or 1, text)


def _stretch(bounds: list[int], window: int | None) -> tuple[int, int]:
    """Begin and end of the text that any of some groups sees."""
    begin = 0 if window is None else max(0, min(bounds) - window + 2)
    return begin, max(max(bounds) + 1, begin)


def _chunks(groups: Groups, query: Tensor, window: int | None) -> Iterable[_Chunk]:
    """Runs of as many groups as `CHUNK_SCORES` allows, one at least."""
    if window is not None:  # a mask for every token: too large to keep
        return _cut(groups, query, window)
    shape = query.shape[1:4]
    if shape not in groups.kept:  # the same for every layer, forward and backward
        groups.kept[shape] = list(_cut(groups, query, window))
    return groups.kept[shape]


def _cut(groups: Groups, query: Tensor, window: int | None) -> Iterator[_Chunk]:
    _, kv_heads, anchors, rows, _ = query.shape
    own_mask = _own_mask(groups, window, query.device)
    for row, bounds in enumerate(groups.bounds):
        start = 0
        for stop in range(1, anchors + 1):
            begin, end = _stretch(bounds[start : stop + 1], window)
            scores = (stop + 1 - start) * kv_heads * rows * (end - begin + groups.size)
            if stop == anchors or scores > CHUNK_SCORES:
                yield _Chunk(row, slice(start, stop), groups, window, own_mask)
                start = stop


def _additive(hidden: Tensor) -> Tensor:
    """0 where a token is seen and -inf where it is hidden: adding is faster than filling."""
    return torch.zeros_like(hidden, dtype=torch.float32).masked_fill_(hidden, -torch.inf)


def _own_mask(groups: Groups, window: int | None, device: torch.device) -> Tensor:
    """Additive mask (size, size) of what a token sees of its own group."""
    ones = torch.ones(groups.size, groups.size, dtype=torch.bool, device=device)
    if not groups.causal:
        return _additive(~torch.eye(groups.size, dtype=torch.bool, device=device))
    hidden = ones.triu(1)
    return _additive(hidden if window is None else hidden | ones.tril(-window))


class _Inputs(NamedTuple):
    """What attention is computed from; groups' tensors as `_grouped` lays them out."""

    query: Tensor
    key: Tensor
    value: Tensor
    text_key: Tensor
    text_value: Tensor
    scaling: float
    softcap: float | None

    def part(self, chunk: _Chunk) -> "_Inputs":
        """One chunk's: (kv_heads, groups, rows, head_dim) and (kv_heads, text, head_dim)."""
        return self._replace(
            query=self.query[chunk.at],
            key=self.key[chunk.at],
            value=self.value[chunk.at],
            text_key=self.text_key[chunk.text_at],
            text_value=self.text_value[chunk.text_at],
        )


class _GroupedAttention(torch.autograd.Function):
    """Softmax attention over text and own group; a frozen text costs no gradient."""

    @staticmethod
    def forward(ctx, query, key, value, text_key, text_value, groups, window, scaling, softcap):  # noqa: ANN001, ANN205
        inputs = _Inputs(query, key, value, text_key, text_value, scaling, softcap)
        output = torch.empty_like(query)
        for chunk in _chunks(groups, query, window):
            output[chunk.at] = _output(inputs.part(chunk), chunk)
        ctx.save_for_backward(query, key, value, text_key, text_value, output)
        ctx.settings = groups, window, scaling, softcap
        return output

    @staticmethod
    def backward(ctx, *grad_outputs):  # noqa: ANN001, ANN002, ANN205
        *tensors, output = ctx.saved_tensors
        groups, window, scaling, softcap = ctx.settings
        inputs = _Inputs(*tensors, scaling, softcap)
        grads = [torch.empty_like(each) for each in (inputs.query, inputs.key, inputs.value)]
        text_grads = None
        if ctx.needs_input_grad[3]:  # groups share the text, so theirs add up
            text_grads = [torch.zeros_like(each) for each in tensors[3:5]]
        for chunk in _chunks(groups, inputs.query, window):
            at = chunk.at
            *parts, of_text = _grads(
                inputs.part(chunk), chunk, output[at], grad_outputs[0][at], text=bool(text_grads)
            )
            for grad, part in zip(grads, parts, strict=True):
                grad[at] = part
            for grad, part in zip(text_grads or (), of_text, strict=True):
                grad[chunk.text_at] += part
        return (*grads, *(text_grads or (None, None)), None, None, None, None)


# A chunk's buffers are locals of a call, so that none is left when the next chunk begins.


def _output(part: _Inputs, chunk: _Chunk) -> Tensor:
    """One chunk's output."""
    probabilities, _ = _probabilities(part, chunk)
    return _sums(probabilities.to(part.value.dtype), part.text_value, part.value)


def _grads(
    part: _Inputs, chunk: _Chunk, output: Tensor, upstream: Tensor, *, text: bool
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...]]:
    """One chunk's gradients of query, key and value, its probabilities computed anew.

    The last are those of the text's key and value, if they are wanted.
    """
    probabilities, slope = _probabilities(part, chunk)
    own = slice(chunk.num_text, None)
    grad_value = torch.matmul(probabilities[..., own].to(part.value.dtype).mT, upstream)
    grad_scores = _products(upstream, part.text_value, part.value)
    row_mean = (upstream.float() * output.float()).sum(-1, keepdim=True)
    grad_scores.sub_(row_mean).mul_(probabilities)
    if slope is not None:
        grad_scores.mul_(slope)
    weights = grad_scores.to(part.query.dtype)
    grad_query = _sums(weights, part.text_key, part.key).mul_(part.scaling)
    grad_key = torch.matmul(weights[..., own].mT, part.query).mul_(part.scaling)
    if not text:
        return grad_query, grad_key, grad_value, ()
    seen = slice(chunk.num_text)
    chances = probabilities[..., seen].to(part.value.dtype).flatten(1, 2)
    of_text = (
        torch.bmm(weights[..., seen].flatten(1, 2).mT, part.query.flatten(1, 2)).mul_(part.scaling),
        torch.bmm(chances.mT, upstream.flatten(1, 2)),
    )
    return grad_query, grad_key, grad_value, of_text


def _probabilities(part: _Inputs, chunk: _Chunk) -> tuple[Tensor, Tensor | None]:
    """One chunk's attention in fp32, (kv_heads, groups, rows, text + size).

    Returns:
        The probabilities, and the slope of the softcap where there is one.
    """
    scores = _products(part.query, part.text_key, part.key).mul_(part.scaling)
    slope = None
    if part.softcap is not None:
        scores.div_(part.softcap).tanh_()
        slope = scores.square().neg_().add_(1)
        scores.mul_(part.softcap)
    by_head = scores.unflatten(2, (-1, chunk.own_mask.shape[0])).transpose(1, 2)
    if chunk.text_mask is not None:
        by_head[..., : chunk.num_text].add_(chunk.text_mask)
    by_head[..., chunk.num_text :].add_(chunk.own_mask)
    return torch.softmax(scores, dim=-1), slope


def _products(rows: Tensor, text: Tensor, own: Tensor) -> Tensor:
    """Products in fp32 of rows with the text's vectors and then with their own group's.

    Args:
        rows: (kv_heads, groups, rows, head_dim).
        text: (kv_heads, text, head_dim).
        own: (kv_heads, groups, size, head_dim).
    """
    count = text.shape[1]
    shape = *rows.shape[:-1], count + own.shape[2]
    joined = torch.empty(shape, dtype=torch.float32, device=rows.device)
    joined[..., :count] = torch.bmm(rows.flatten(1, 2), text.mT).view(*shape[:-1], count)
    joined[..., count:] = torch.matmul(rows, own.mT)
    return joined


def _sums(weights: Tensor, text: Tensor, own: Tensor) -> Tensor:
    """Sums of the text's vectors and of their own group's, so weighted: undoes `_products`."""
    count = text.shape[1]
    of_text = torch.bmm(weights[..., :count].flatten(1, 2), text)
    return torch.matmul(weights[..., count:], own).add_(of_text.view(*weights.shape[:-1], -1))
