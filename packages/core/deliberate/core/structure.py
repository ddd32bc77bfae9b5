"""What a decoder's own structure says of it: which are refused, its positions, layers, last norm.

configuration --check_supported--> modules --check_structure--> layers, final norm

No model is known by name.
"""

from typing import Any, cast

from torch import nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from deliberate.core.errors import UnsupportedModelError

_OTHER_ATTENTION = {
    "sinks": "attention sinks",
    "lambda_q1": "differential attention",  # it asks twice a layer, with values that are not kept
}
"""What an attention module has that computes otherwise than ours, and what that is called."""


def check_supported(config: PreTrainedConfig) -> None:
    """Refuse what cannot work, from the configuration alone.

    Raises:
        UnsupportedModelError: names the model and what it lacks.
    """
    name = config.model_type
    supported = "use a decoder whose every layer keeps keys and values, such as Llama or Gemma 2"
    if config.is_encoder_decoder:
        raise UnsupportedModelError(f"{name!r} is an encoder-decoder: {supported}")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise UnsupportedModelError(f"{name!r} is not a causal language model: {supported}")
    architecture = cast(type[PreTrainedModel], MODEL_FOR_CAUSAL_LM_MAPPING[type(config)])
    if getattr(architecture, "_is_stateful", False):
        raise UnsupportedModelError(f"{name!r} keeps a recurrent state: {supported}")
    if getattr(config, "hidden_size_per_layer_input", 0):
        raise UnsupportedModelError(
            f"{name!r} has per-layer embeddings, which latents do not have: {supported}"
        )
    if getattr(config, "kv_lora_rank", None):
        raise UnsupportedModelError(
            f"{name!r} keeps compressed keys and values, which groups cannot read: {supported}"
        )
    if "chunked_attention" in (getattr(config, "layer_types", None) or ()):
        raise UnsupportedModelError(
            f"{name!r} has chunked attention, which groups do not have: {supported}"
        )
    try:
        layers = DynamicCache(config=config).layers
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnsupportedModelError(
            f"{name!r} says of its layers what no cache is made from ({error}): {supported}"
        ) from error
    if not layers:
        raise UnsupportedModelError(f"{name!r} has no layers: {supported}")
    for index, layer in enumerate(layers):
        if type(layer) not in {DynamicLayer, DynamicSlidingWindowLayer}:
            kind = type(layer).__name__
            raise UnsupportedModelError(
                f"layer {index} of {name!r} keeps a {kind} and not keys and values: {supported}"
            )
    if not architecture._supports_attention_backend:
        raise UnsupportedModelError(
            f"{name!r} does not let its attention be chosen, which groups need: {supported}"
        )


def check_structure(model: PreTrainedModel) -> None:
    """Refuse what cannot work, from the modules, before anything is computed.

    Raises:
        UnsupportedModelError: names the model and what it has.
    """
    name = model.config.model_type
    supported = "use a decoder such as Llama or Gemma 2"
    if model.get_decoder() is not model.base_model:
        raise UnsupportedModelError(
            f"{name!r} keeps its decoder inside another module, where its head cannot be had "
            f"apart: {supported}"
        )
    if any(getattr(module, "is_causal", True) is False for module in model.modules()):
        raise UnsupportedModelError(
            f"{name!r} lets a token see those that come after it, as encoders do: {supported}"
        )
    for attribute, has in _OTHER_ATTENTION.items():
        if any(hasattr(module, attribute) for module in model.modules()):
            raise UnsupportedModelError(
                f"{name!r} has {has}, which grouped attention does not have: {supported}"
            )


def longrope_length(rope: Any) -> int | None:
    """Up to how many positions longrope turns them in one way; none where it is not used.

    Args:
        rope: A configuration's `rope_parameters`, in some families one a kind of layer.
    """
    if not isinstance(rope, dict):
        return None
    if rope.get("rope_type") == "longrope":
        length = rope.get("original_max_position_embeddings")
        return length if isinstance(length, int) and length > 0 else None
    found = [longrope_length(each) for each in rope.values()]
    return min((each for each in found if each is not None), default=None)


def decoder_layers(trunk: PreTrainedModel) -> nn.ModuleList:
    """A decoder's layers: its one list of modules as long as the configuration says.

    Raises:
        UnsupportedModelError: there is none, or more than one.
    """
    count = trunk.config.num_hidden_layers
    lists = [
        child
        for child in trunk.children()
        if isinstance(child, nn.ModuleList) and len(child) == count
    ]
    if len(lists) != 1:
        raise UnsupportedModelError(
            f"{trunk.config.model_type!r} has {len(lists)} lists of {count} layers and not one: "
            "train it without train.recompute, train.compile, train.shard, coprocessor.layers and "
            "--dry-run"
        )
    return lists[0]


def final_norm(trunk: PreTrainedModel) -> str:
    """Name of the norm that a decoder ends with: its one direct child of hidden-sized vectors.

    Raises:
        UnsupportedModelError: there is none, or more than one.
    """
    hidden = trunk.config.hidden_size
    names = []
    for name, child in trunk.named_children():
        shapes = {tuple(parameter.shape) for parameter in child.parameters()}
        if shapes == {(hidden,)}:
            names.append(name)
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise UnsupportedModelError(
            f"{trunk.config.model_type!r} has no single final norm (found: {found}): "
            "set coprocessor.latent_norm to after"
        )
    return names[0]
