"""The base: a frozen causal language model, and what the method needs of it.

Everything here is found from the model's own structure; no model is known by name.

Source: arXiv:2412.17747, section 2.1.
"""

import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from deliberate.core import fingerprint, hub, model_folder
from deliberate.core.cache import Origin, Reading, read
from deliberate.core.errors import DeliberateError
from deliberate.core.structure import check_structure, check_supported, final_norm, longrope_length

EMBEDDED = "nano"
"""Name of the base that ships inside the package."""

NANO = Path(__file__).parent / "nano"
"""Folder of the embedded base, its coprocessor and its soft embedding."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Base:
    """A causal language model that is read through and never changed."""

    model: PreTrainedModel = field(repr=False)
    """With its head, in eval mode, no parameter requiring a gradient."""

    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    """Its tokenizer."""

    id: str
    """Folder name or Hub id."""

    revision: str = ""
    """Commit, where it came from the Hub."""

    fingerprint: str = ""
    """Identifies architecture and weights, whatever the dtype they are held in."""

    _head: PreTrainedModel = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Freeze the model and set its head apart."""
        check_supported(self.model.config)
        check_structure(self.model)
        self.model.requires_grad_(requires_grad=False).eval()
        object.__setattr__(self, "_head", _head_of(self.model))

    @property
    def trunk(self) -> PreTrainedModel:
        """The decoder without its head."""
        return cast(PreTrainedModel, self.model.base_model)

    @property
    def origin(self) -> Origin:
        """What a cache made by this base notes."""
        return Origin(base=self.id, revision=self.revision, base_fingerprint=self.fingerprint)

    @property
    def positions(self) -> int | None:
        """How many positions the model has; none where it has no limit.

        Of a model that turns all positions otherwise as soon as one is beyond a length (longrope),
        that length: what is cached was turned for a short text, and rows of a batch are turned
        alike.
        """
        limit: int | None = getattr(self.model.config, "max_position_embeddings", None)
        switch = longrope_length(getattr(self.model.config, "rope_parameters", None))
        return min((each for each in (limit, switch) if each is not None), default=None)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.model.device

    @property
    def vocab(self) -> int:
        """Tokens that it has an embedding for."""
        return self._embedding.weight.shape[0]

    @property
    def hidden(self) -> int:
        """Width of its input embeddings."""
        return self._embedding.weight.shape[1]

    @property
    def num_parameters(self) -> int:
        """Its weights, shared ones counted once, without low-rank weights beside them."""
        named = self.model.named_parameters()
        return sum(parameter.numel() for name, parameter in named if ".lora_" not in name)

    @property
    def _embedding(self) -> nn.Embedding:
        return cast(nn.Embedding, self.trunk.get_input_embeddings())

    def embed(self, token_ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape hidden"]:
        """Input embeddings of tokens, as the first layer takes them."""
        return self._embedding(token_ids)

    def embedding_rows(self, count: int) -> Float[Tensor, "count hidden"]:
        """The first rows of the embedding's weights, as they are stored."""
        return self._embedding.weight[:count]

    def read(self, token_ids: Int[Tensor, "batch token"]) -> Reading:
        """Read texts, without gradient."""
        return read(self.trunk, token_ids)

    def logits(self, hidden: Float[Tensor, "*shape hidden"]) -> Float[Tensor, "*shape vocab"]:
        """Logits of last hidden states, through the model's own head, softcap and scales."""
        flat = hidden.reshape(1, -1, hidden.shape[-1])
        return self._head(inputs_embeds=flat).logits.view(*hidden.shape[:-1], -1)


def load_base(
    name: str = EMBEDDED,
    *,
    revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
) -> Base:
    """Load and freeze a base model.

    Args:
        name: `nano`, a folder, or a Hub id: `user/repo`, `user/repo@revision`, `hf://user/repo`.
        revision: Branch, tag or commit on the Hub, where the id does not say it.
        dtype: In which its weights are held.
        device: Where they are held.

    Raises:
        DeliberateError: there is no such model, or its files cannot be read.
        UnsupportedModelError: the model cannot be augmented; found before its weights are read.
    """
    found = _find(name, revision)
    folder = found.folder
    explained = partial(model_folder.explained, f"cannot load {name!r} as a base model")
    with explained():
        # Said aloud: transformers otherwise asks on the terminal whether to run code it was sent.
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    check_supported(config)
    with explained():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        model, told = loaded
        tokenizer = cast(
            PreTrainedTokenizerBase, AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        )
    if lacking := sorted(told["missing_keys"]):  # the library makes them up
        raise DeliberateError(
            f"cannot load {name!r} as a base model: its weights lack {len(lacking)} that its "
            f"config.json describes, such as {lacking[0]!r:.100}: get the model again"
        )
    return Base(
        model=model.to(device),
        tokenizer=tokenizer,
        id=name if name == EMBEDDED else _id_of(found),
        revision=found.commit,
        fingerprint=fingerprint.of_base(folder),
    )


def base_fingerprint(name: str, *, revision: str | None = None) -> str:
    """The fingerprint that a base will have, before it is loaded.

    Args:
        name: As in `load_base`.
        revision: As in `load_base`.

    Raises:
        DeliberateError: there is no such model, or its files cannot be read.
    """
    folder = _find(name, revision).folder
    wrong = f"cannot load {name!r} as a base model"
    with model_folder.explained(wrong, of=(OSError, ValueError)):
        return fingerprint.of_base(folder)


def _find(name: str, revision: str | None) -> hub.Found:
    if name == EMBEDDED:
        found = hub.Found(folder=NANO / "base")
    else:
        found = hub.resolve(name, revision=revision, what="base model", bare=True)
    model_folder.check(found.folder, name=name)
    return found


def _id_of(found: hub.Found) -> str:
    """By what a base is found again; its commit is kept beside it."""
    # A relative folder would mean another one, or a Hub id, in another working folder.
    return str(found.folder.resolve()) if found.hub is None else found.hub.repo


@torch.no_grad()
def residual_scale(base: Base, token_ids: Int[Tensor, "batch token"]) -> float:
    """Median root mean square of the residual stream before the final norm, tokens 1 and up.

    The first token is left out: many models keep an outlier there.
    """
    seen: list[Tensor] = []
    norm = base.trunk.get_submodule(final_norm(base.trunk))
    handle = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        base.read(token_ids)
    finally:
        handle.remove()
    return float(seen[0][:, 1:].float().square().mean(-1).sqrt().median())


class _Output(BaseModelOutputWithPastAndCrossAttentions):
    """A decoder's output in which everything is missing but the last hidden state."""

    def __getattr__(self, name: str) -> None:
        """What some families look for, such as the logits of a router.

        Raises:
            AttributeError: it is one of Python's own names.
        """
        if name.startswith("__"):
            raise AttributeError(name)


class _PassThrough(nn.Module):
    """Stands in for the decoder and hands its input to the head."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> _Output:
        """Return `inputs_embeds` as the last hidden state."""
        return _Output(last_hidden_state=inputs_embeds)


def _head_of(model: PreTrainedModel) -> PreTrainedModel:
    """The model's own forward and head over hidden states, sharing its weights."""
    head = copy.copy(model)
    head._modules = {**model._modules, model.base_model_prefix: _PassThrough()}
    return head
