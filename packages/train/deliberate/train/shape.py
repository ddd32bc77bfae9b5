"""What a run's models measure, from their configuration alone: no weight is made or read.

recipe --architecture--> base and coprocessor on torch's `meta` device --> Shape
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from tokenizers import Tokenizer, models
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.pytorch_utils import Conv1D

from deliberate.core.adapted import AdaptedCoprocessor
from deliberate.core.base import EMBEDDED, NANO, Base
from deliberate.core.coprocessor import Coprocessor, LatentScale
from deliberate.core.errors import DeliberateError
from deliberate.core.kinds import build
from deliberate.core.model_folder import explained
from deliberate.core.structure import check_supported, decoder_layers
from deliberate.core.trunk_coprocessor import TrunkCoprocessor
from deliberate.train.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Counts of weights and widths."""

    layers: int
    """Decoder layers of the base."""

    coprocessor_layers: int
    """Decoder layers that the groups' soft tokens go through."""

    hidden: int
    """Width of the residual stream."""

    inner: int
    """Width of the feed-forward layers."""

    queries: int
    """Width of all query heads together."""

    values: int
    """Width of all key heads together, and so of all value heads."""

    vocab: int
    """Tokens that the head predicts."""

    base: int
    """Weights of the base, shared ones counted once."""

    trained: int
    """Weights that learn."""

    trunk: int
    """Weights of the base's decoder that are multiplied by each token."""

    trained_trunk: int
    """Likewise of what learns."""

    shared_trunk: int
    """Likewise of what the coprocessor uses and does not train."""

    frozen: int
    """Weights that the coprocessor has to itself and does not train."""

    text_flops: int
    """FLOPs that the coprocessor spends on the text itself, a weight and token."""

    writes_latents: bool
    """Whether there are latents at all."""


def shape_of(recipe: Recipe) -> Shape:
    """Measure a recipe's models.

    Raises:
        DeliberateError: the base's architecture is not known here.
        UnsupportedModelError: the base cannot be augmented.
    """
    model = _model(recipe)
    config = model.config
    with torch.device("meta"):
        base = Base(model=model, tokenizer=_blank_tokenizer(), id=recipe.base.id)
        trunk = _count(_multiplied(base.trunk))  # before low-rank weights come to stand in it
        # The start of a learned scale is measured on real weights: here any start will do.
        norm, scale = recipe.coprocessor.latent_norm, recipe.coprocessor.latent_scale
        unscaled = {"latent_norm": "after" if norm == "embedding" else norm, "latent_scale": 1.0}
        made = build(replace(recipe.coprocessor, **unscaled), base)
        reader = made.trunk if isinstance(made, TrunkCoprocessor) else None
        if isinstance(made, TrunkCoprocessor) and (norm == "embedding" or scale != 1):
            made.scale = LatentScale(1.0)
        coprocessor: Coprocessor = made
        if recipe.train.adapt_rank is not None:
            trained_one = cast(TrunkCoprocessor, made)
            coprocessor = AdaptedCoprocessor(trained_one, rank=recipe.train.adapt_rank)
    own = {id(parameter) for parameter in coprocessor.parameters()}
    trained = _multiplied(coprocessor)
    heads: int = config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Shape(
        layers=len(decoder_layers(base.trunk)),
        coprocessor_layers=0 if reader is None else len(decoder_layers(reader)),
        hidden=base.hidden,
        inner=_inner(base.trunk),
        queries=heads * head_dim,
        values=(getattr(config, "num_key_value_heads", None) or heads) * head_dim,
        vocab=base.vocab,
        base=base.num_parameters,
        trained=coprocessor.num_parameters,
        trunk=trunk,
        trained_trunk=_count(trained),
        shared_trunk=0
        if reader is None
        else _count([p for p in _multiplied(reader) if id(p) not in own]),
        frozen=_count([p for p in made.parameters() if id(p) not in own]),
        text_flops=made.text_flops,
        writes_latents=made.writes_latents,
    )


def _model(recipe: Recipe) -> PreTrainedModel:
    """The base without weights, from the configuration in its folder or in the recipe.

    Raises:
        DeliberateError: that is in neither, or says what cannot be.
        UnsupportedModelError: the base cannot be augmented.
    """
    name, carried = recipe.base.id, recipe.base.architecture
    folder = NANO / "base" if name == EMBEDDED else Path(name)
    if folder.is_dir():
        explaining = partial(explained, f"cannot load {name!r} as a base model")
        with explaining():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    elif carried is not None:
        wrong = "base.architecture is no configuration of transformers"
        explaining = partial(explained, wrong, mend="write it as in the base's config.json")
        settings: dict[str, Any] = dict(carried)
        with explaining():
            config = AutoConfig.for_model(settings.pop("model_type", ""), **settings)
    else:
        raise DeliberateError(
            f"the architecture of base {name!r} is not here: name a folder as base.id, or write "
            "its configuration into the recipe as base.architecture"
        )
    check_supported(config)
    with explaining(), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def _blank_tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"": 0})))


def _multiplied(module: nn.Module) -> list[nn.Parameter]:
    """Matrices that tokens are multiplied by: neither embeddings nor soft tokens."""
    looked_up = {
        id(weight)
        for part in module.modules()
        if isinstance(part, nn.Embedding)
        for weight in part.parameters()
    }
    if isinstance(module, Coprocessor):
        looked_up |= {id(weight) for weight in module.soft_parameters()}
    return [
        weight for weight in module.parameters() if weight.ndim >= 2 and id(weight) not in looked_up
    ]


def _inner(trunk: PreTrainedModel) -> int:
    """The widest input of a linear layer of the first decoder layer."""
    widths = [
        part.weight.shape[0 if isinstance(part, Conv1D) else 1]
        for part in decoder_layers(trunk)[0].modules()
        if isinstance(part, nn.Linear | Conv1D)
    ]
    return max(widths)


def _count(weights: list[nn.Parameter]) -> int:
    return sum(weight.numel() for weight in weights)
