"""Low-rank weights beside those of a decoder that others use too, switched on for one pass.

    linear layer: W x  --switched on-->  W x + B A x

peft keeps them; its switch also turns gradients on and off, which is undone here, because a
parameter that wants no gradient when the backward runs gets none.

Source: arXiv:2412.17747, table 5 (LoRA) and section A.2.
"""

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from deliberate.core.errors import UnsupportedModelError


def add_adapters(
    trunk: PreTrainedModel, *, rank: int, targets: Sequence[str] | None
) -> tuple[str, dict[str, nn.Parameter]]:
    """Put low-rank weights beside a decoder's linear layers, and leave them switched off.

    Args:
        trunk: Gets them; computes what it did before, to the last bit.
        rank: Of each product B A, which is added as it is.
        targets: Names of linear layers, or all.

    Returns:
        The set's name among those that the decoder holds, and its weights by layer.

    Raises:
        UnsupportedModelError: the decoder has no linear layers of these names.
    """
    from peft import LoraConfig, inject_adapter_in_model

    linear = _linear_layers(trunk)
    known = sorted({name.rpartition(".")[2] for name in linear})
    unknown = [name for name in targets or () if name not in known]
    if unknown:
        raise UnsupportedModelError(
            f"coprocessor.targets names {unknown[0]!r} and the base's linear layers are called "
            f"{', '.join(known)}: name some of those, or none for all"
        )
    chosen = [name for name in linear if targets is None or name.rpartition(".")[2] in targets]
    layers = _adapted(trunk)
    name = f"set{len({key for layer in layers for key in layer.lora_A})}"
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=chosen,
        fan_in_fan_out=all(isinstance(linear[each], Conv1D) for each in chosen),
    )
    with warnings.catch_warnings():
        # It is meant: each set is switched on by itself.
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
        inject_adapter_in_model(config, trunk, adapter_name=name)
    weights: dict[str, nn.Parameter] = {}
    for path, layer in trunk.named_modules():
        if hasattr(layer, "lora_A") and name in layer.lora_A:
            weights[f"{path}.A"] = layer.lora_A[name].weight
            weights[f"{path}.B"] = layer.lora_B[name].weight
    _switch(_adapted(trunk), on=False)
    for weight in weights.values():
        weight.requires_grad_()
    return name, weights


@contextmanager
def adapters_on(trunk: PreTrainedModel, name: str) -> Generator[None]:
    """Let a decoder use one set of its low-rank weights in this block."""
    layers = [layer for layer in _adapted(trunk) if name in layer.lora_A]
    _switch(layers, on=True, name=name)
    try:
        yield
    finally:
        _switch(layers, on=False)


def keep_on(trunk: PreTrainedModel, name: str) -> None:
    """Let a decoder that nobody else uses have one set of its low-rank weights for good."""
    _switch([layer for layer in _adapted(trunk) if name in layer.lora_A], on=True, name=name)


def merge_adapters(trunk: PreTrainedModel) -> None:
    """Add the low-rank products that are on to a decoder's own weights, and take them out of it."""
    for layer in _adapted(trunk):
        layer.merge()
    without_adapters(trunk)


def without_adapters(trunk: PreTrainedModel) -> PreTrainedModel:
    """A decoder of one's own, with the linear layers themselves in their place again."""
    for path, layer in list(trunk.named_modules()):
        if hasattr(layer, "lora_A"):
            trunk.set_submodule(path, layer.get_base_layer())
    return trunk


def _linear_layers(trunk: PreTrainedModel) -> dict[str, nn.Module]:
    """Linear layers by name; one that has low-rank weights already counts by its own name."""
    found = {}
    for path, module in trunk.named_modules():
        if hasattr(module, "lora_A"):
            found[path] = module.get_base_layer()
        elif isinstance(module, nn.Linear | Conv1D) and "lora_" not in path:
            found[path.removesuffix(".base_layer")] = module
    return found


def _adapted(trunk: PreTrainedModel) -> list[Any]:
    return [module for module in trunk.modules() if hasattr(module, "lora_A")]


def _switch(layers: Sequence[Any], *, on: bool, name: str = "") -> None:
    """Switch layers' low-rank weights, and leave alone which of them want gradients."""
    for layer in layers:
        sets = [layer.lora_A, layer.lora_B]
        wanted = [(weight, weight.requires_grad) for each in sets for weight in each.parameters()]
        if on:
            layer.set_adapter(name)
        layer.enable_adapters(on)
        for weight, wants in wanted:
            weight.requires_grad_(wants)
