"""One pass of many groups through a decoder that reads a shared text.

    groups' embeddings --decoder, its attention replaced for this pass--> last hidden states

The text's keys and values are handed to the model's attention as keyword arguments, so no model's
code changes.

Source: arXiv:2412.17747, section 2.3 and figure 2.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

from deliberate.core.errors import UnsupportedModelError
from deliberate.core.execution import Execution, running_as
from deliberate.core.flex import attend_flex
from deliberate.core.grouped_attention import attend_in_parts
from deliberate.core.groups import Groups

_FORMS = {"parts": attend_in_parts, "flex": attend_flex}


def grouped_forward(
    trunk: PreTrainedModel,
    embeds: Float[Tensor, "batch anchors size hidden"],
    *,
    groups: Groups,
    position_ids: Int[Tensor, "batch anchors size"],
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    execution: Execution,
    inside: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Float[Tensor, "batch anchors size hidden"]:
    """Run groups of input embeddings through a decoder that reads a shared text.

    Args:
        trunk: A decoder without head; its attention setting is changed for this call.
        embeds: Input embeddings of the groups' tokens.
        groups: Who sees whom.
        position_ids: The tokens' position ids.
        keys: The text's keys, one a layer, (batch, kv_heads, token, head_dim).
        values: Likewise.
        execution: Which form of attention, and what is kept for the backward.
        inside: Entered around the forward, and around what the backward runs again: a switch of
            the trunk's that this call needs.

    Returns:
        The last hidden states.

    Raises:
        UnsupportedModelError: the model's attention asks for what groups cannot give.
    """

    @contextmanager
    def switched() -> Generator[None]:
        with _grouped_attention(trunk, execution), inside():
            yield

    with switched(), running_as(execution, trunk, switched):
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
def _grouped_attention(trunk: PreTrainedModel, execution: Execution) -> Generator[None]:
    name = f"deliberate_{execution.attention}"
    attend = partial(_attend, form=_FORMS[execution.attention])
    # A compiled layer breaks here: its chunks follow the anchors, which are new at every step.
    AttentionInterface.register(
        name, torch.compiler.disable(attend) if execution.compile else attend
    )
    before = trunk.config._attn_implementation
    trunk.config._attn_implementation = name
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
    groups: Groups | None = None,
    text_keys: Sequence[Tensor] = (),
    text_values: Sequence[Tensor] = (),
    form: Callable[..., Tensor],
    **others: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls in each layer.

    Raises:
        UnsupportedModelError: the model keeps its forward's keyword arguments from its attention,
            or attends to other keys than it caches.
    """
    if groups is None:
        raise UnsupportedModelError(
            f"{type(module).__name__} does not get its model's keyword arguments, which groups "
            "need: use a decoder such as Llama or Gemma 2"
        )
    layer: Any = module.layer_idx
    text_key, text_value = text_keys[layer], text_values[layer]
    if key.shape[1] != text_key.shape[1]:
        raise UnsupportedModelError(
            f"{type(module).__name__} reads {key.shape[1]} heads of keys and caches "
            f"{text_key.shape[1]}, which groups cannot read: use a decoder such as Llama or Gemma 2"
        )
    output = form(
        *(part.to(text_key.dtype) for part in (query, key, value)),
        text_key,
        text_value,
        groups=groups,
        window=sliding_window,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        softcap=softcap,
    )
    return output.transpose(1, 2).contiguous(), None  # some families view it as it lies
