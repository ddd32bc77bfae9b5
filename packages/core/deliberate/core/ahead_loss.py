"""The objective: how well the base predicts the tokens after an anchor.

    [latents, x(p+1) .. x(p+A-1)] --base--> logits of x(p+1) .. x(p+A) --> loss by token ahead

The last latent predicts the first ahead token. Training averages these losses; evaluation
reports them token by token.

Source: arXiv:2412.17747, sections 2.2 and 2.3, equation 2.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.nn.functional import log_softmax

from deliberate.core.base import Base
from deliberate.core.cache import Reading
from deliberate.core.execution import Execution
from deliberate.core.grouped_forward import grouped_forward
from deliberate.core.groups import (
    Groups,
    Positions,
    ahead_positions,
    ahead_tokens,
    latent_positions,
)

LOGITS_AT_ONCE = 1 << 19
"""Most logits held at a time, so that they stay in a CPU's cache; see `FEWEST_ROWS`."""

FEWEST_ROWS = 64
"""A chunk has at least these rows, or a large vocabulary would make products too thin
(`docs/log.md`, 2026-11-25)."""


def rows_at_once(base: Base) -> int:
    """Rows of hidden states whose logits are held at a time."""
    return max(FEWEST_ROWS, LOGITS_AT_ONCE // base.vocab)


def ahead_losses(
    base: Base,
    reading: Reading,
    anchors: Int[Tensor, "batch anchors"],
    latents: Float[Tensor, "batch anchors latents hidden"],
    *,
    ahead: int,
    positions: Positions,
    delay: int = 0,
    execution: Execution | None = None,
) -> Float[Tensor, "batch anchors ahead"]:
    """Loss at each of the `ahead` tokens after each anchor, in nats, given its latents.

    Latents that arrive `delay` tokens late find the base at x[p+delay-1], with x[p+delay] known
    but unread, so that nothing is predicted from the last of them: the losses are then on
    x[p+delay+1] and on. (Section A.5; the paper does not train with a delay.)

    Args:
        base: Reads latents and ahead tokens; gradients pass through it to the latents.
        reading: The texts, with at least `delay` + `ahead` tokens after each anchor.
        anchors: Index of the last token that each group's latents know.
        latents: What is read after each anchor.
        ahead: How many tokens are predicted.
        positions: Where the latents stand.
        delay: Tokens that the base decodes before the latents arrive.
        execution: How the groups go through the base.
    """
    hidden = ahead_hidden(
        base,
        reading,
        anchors,
        latents,
        ahead=ahead,
        positions=positions,
        delay=delay,
        execution=execution,
    )
    return token_losses(base, hidden, ahead_tokens(reading.token_ids, anchors + delay, ahead=ahead))


def ahead_hidden(
    base: Base,
    reading: Reading,
    anchors: Int[Tensor, "batch anchors"],
    latents: Float[Tensor, "batch anchors latents hidden"],
    *,
    ahead: int,
    positions: Positions,
    delay: int = 0,
    execution: Execution | None = None,
) -> Float[Tensor, "batch anchors ahead hidden"]:
    """The last hidden states that predict these tokens, each from the true ones before it.

    Args:
        base: As in `ahead_losses`, as are the others.
        reading: The texts.
        anchors: Index of the last token that each group's latents know.
        latents: What is read after each anchor.
        ahead: How many tokens are predicted.
        positions: Where the latents stand.
        delay: Tokens that the base decodes before the latents arrive.
        execution: How the groups go through the base.
    """
    count = latents.shape[2]
    known = min(delay, 1)  # tokens read after the latents that nothing has to predict
    at, following = anchors + delay - known, ahead + known
    fed = base.embed(ahead_tokens(reading.token_ids, at, ahead=following - 1))
    position_ids = torch.cat(
        [
            latent_positions(at, latents=count, positions=positions),
            ahead_positions(at, latents=count, ahead=following - 1, positions=positions),
        ],
        dim=-1,
    )
    hidden = grouped_forward(
        base.trunk,
        torch.cat([latents.to(fed.dtype), fed], dim=2),
        groups=Groups(at, count + following - 1, causal=True),
        position_ids=position_ids,
        keys=reading.keys,
        values=reading.values,
        execution=execution or Execution(),
    )
    return hidden[:, :, count - 1 + known :]


def plain_losses(
    base: Base,
    reading: Reading,
    anchors: Int[Tensor, "batch anchors"],
    *,
    ahead: int,
    delay: int = 0,
) -> Float[Tensor, "batch anchors ahead"]:
    """The base's own loss, in nats, at the same tokens without latents.

    Raises:
        ValueError: the reading was loaded and not read just now.
    """
    if reading.hidden is None:
        raise ValueError("the reading has no last hidden states: read the text with `Base.read`")
    losses = token_losses(base, reading.hidden[:, :-1], reading.token_ids[:, 1:])
    return at_anchors(losses, anchors + delay, ahead=ahead)


def at_anchors(
    losses: Float[Tensor, "batch predicting"],
    anchors: Int[Tensor, "batch anchors"],
    *,
    ahead: int,
) -> Float[Tensor, "batch anchors ahead"]:
    """Each text's losses, one a token that predicts, at the tokens from each anchor on."""
    index = anchors[..., None] + torch.arange(ahead, device=anchors.device)
    return losses.gather(1, index.flatten(1)).view_as(index)


def token_losses(
    base: Base, hidden: Float[Tensor, "*shape hidden"], targets: Int[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Loss of each target, in nats and fp32, from last hidden states through the base's head."""
    return _TokenLosses.apply(base, hidden.flatten(0, -2), targets.flatten()).view(targets.shape)


class _TokenLosses(torch.autograd.Function):
    """Losses in chunks, each one's gradient taken at once, so that its logits can go.

    A row's loss depends on that row alone: the backward is one product with these gradients.
    """

    @staticmethod
    def forward(ctx, base, hidden, targets):  # noqa: ANN001, ANN205
        rows = rows_at_once(base)
        wanted = ctx.needs_input_grad[1]
        parts = zip(hidden.split(rows), targets.split(rows), strict=True)
        losses, grads = zip(*(_of_chunk(base, *part, wanted=wanted) for part in parts), strict=True)
        if wanted:
            ctx.save_for_backward(torch.cat(grads))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx, *grad_outputs):  # noqa: ANN001, ANN002, ANN205
        (grads,), (grad_losses,) = ctx.saved_tensors, grad_outputs
        return None, (grads * grad_losses[:, None]).to(grads.dtype), None


def _of_chunk(
    base: Base, hidden: Tensor, targets: Tensor, *, wanted: bool
) -> tuple[Tensor, Tensor | None]:
    """Each row's loss, and if it is wanted that loss's gradient to the row."""
    with torch.set_grad_enabled(wanted):
        hidden = hidden.detach().requires_grad_(wanted)
        logits = base.logits(hidden)
    at = targets[:, None]
    logs = log_softmax(logits.detach(), -1, dtype=torch.float32)
    losses = -logs.gather(1, at)[:, 0]
    if not wanted:
        return losses, None
    edge, dtype = get_gradient_edge(logits), logits.dtype
    del logits  # a backward needs not the logits but what they were made from
    # The loss's gradient to the logits, made in place of what the loss was taken from.
    slopes = logs.exp_().scatter_add_(1, at, logs.new_full(at.shape, -1.0)).to(dtype)
    del logs
    (grads,) = torch.autograd.grad(edge, hidden, slopes)
    return losses, grads
