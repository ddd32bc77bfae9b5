"""The cache: what the base made of a text. With `room.py`, the only file that knows transformers'.

texts --read--> Reading (all of them) --caches--> Cache (one text each) --stack--> Reading

Source: arXiv:2412.17747, section 2.1.
"""

import dataclasses
import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from deliberate.core.errors import CacheError


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Which models made a cache."""

    base: str = ""
    """Folder name or Hub id of the base."""

    revision: str = ""
    """Its revision, where it came from the Hub."""

    base_fingerprint: str = ""
    """Identifies the base's architecture and weights."""

    coprocessor: str = ""
    """Folder name or Hub id of the coprocessor, once augmented."""

    coprocessor_fingerprint: str = ""
    """Identifies the coprocessor, once augmented."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Cache:
    """One text's keys and values, and with latents those of the latents after it."""

    keys: Sequence[Float[Tensor, "kv_heads cached head_dim"]]
    """One a layer."""

    values: Sequence[Float[Tensor, "kv_heads cached head_dim"]]
    """One a layer."""

    token_ids: Int[Tensor, " token"]
    """The text; fewer than `cached` when there are latents, which have no token."""

    position_ids: Int[Tensor, " cached"]
    """Position of each cached token or latent."""

    last_hidden: Float[Tensor, " hidden"]
    """Last hidden state at the last token before any latents: predicts the next without them."""

    latents: Float[Tensor, "latents hidden"] | None = None
    """What the coprocessor wrote, if it did."""

    latents_last_hidden: Float[Tensor, " hidden"] | None = None
    """With latents: last hidden state at the end, which predicts the next token with them."""

    followed: int = 0
    """Text tokens that were read after the latents."""

    origin: Origin = field(default_factory=Origin)
    """Which models made it."""

    @property
    def next_position(self) -> int:
        """Position id of the token that comes next."""
        return int(self.position_ids.max()) + 1

    @property
    def tip(self) -> Float[Tensor, " hidden"]:
        """The last hidden state that predicts the next token."""
        return self.last_hidden if self.latents_last_hidden is None else self.latents_last_hidden

    def text_part(self) -> "Cache":
        """The cache as it was before it was augmented."""
        if self.latents is None:
            return self
        text = len(self.token_ids) - self.followed
        return Cache(
            keys=[layer[:, :text] for layer in self.keys],
            values=[layer[:, :text] for layer in self.values],
            token_ids=self.token_ids[:text],
            position_ids=self.position_ids[:text],
            last_hidden=self.last_hidden,
            origin=dataclasses.replace(self.origin, coprocessor="", coprocessor_fingerprint=""),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Reading:
    """What the base made of a batch of texts, padded on the right where they differ in length.

    Nothing needs the lengths: a group sees no token beyond its anchor.
    """

    token_ids: Int[Tensor, "batch token"]
    keys: Sequence[Float[Tensor, "batch kv_heads token head_dim"]]
    values: Sequence[Float[Tensor, "batch kv_heads token head_dim"]]
    embeds: Float[Tensor, "batch token hidden"]
    """The base's input embeddings of the tokens."""

    hidden: Float[Tensor, "batch token hidden"] | None = None
    """Last hidden states, where the text was read just now and not loaded."""


@torch.no_grad()
def read(trunk: PreTrainedModel, token_ids: Int[Tensor, "batch token"]) -> Reading:
    """Let the base read texts, without gradient.

    Args:
        trunk: The base's decoder, without its head.
        token_ids: Texts, padded on the right with any token.
    """
    cache = DynamicCache()  # made without a config it keeps every position of every layer
    embeds = trunk.get_input_embeddings()(token_ids)
    position_ids = torch.arange(token_ids.shape[1], device=token_ids.device).expand_as(token_ids)
    output = trunk(
        input_ids=token_ids,
        position_ids=position_ids,
        use_cache=True,
        **{cache_keyword(type(trunk)): cache},
    )
    keys, values = key_values(cache)
    return Reading(
        token_ids=token_ids,
        keys=keys,
        values=values,
        embeds=embeds,
        hidden=output.last_hidden_state,
    )


@functools.cache
def cache_keyword(trunk: type[PreTrainedModel]) -> str:
    """By which name a decoder takes a cache: `cache` in new versions of transformers."""
    given = inspect.signature(trunk.forward).parameters
    return "cache" if "cache" in given else "past_key_values"


def key_values(cache: DynamicCache) -> tuple[list[Tensor], list[Tensor]]:
    """A cache's keys and its values, one a layer, (batch, kv_heads, cached, head_dim).

    Raises:
        CacheError: a layer does not keep every position.
    """
    keys, values = [], []
    for index, layer in enumerate(cache.layers):
        if type(layer) is not DynamicLayer or layer.keys is None or layer.values is None:
            raise CacheError(f"layer {index} is a {type(layer).__name__}, which we cannot read")
        keys.append(layer.keys)
        values.append(layer.values)
    return keys, values


def replace_key_values(
    cache: DynamicCache, keys: Sequence[Tensor], values: Sequence[Tensor]
) -> None:
    """Undo `key_values`, with tensors of the same shapes."""
    layers = cast(list[DynamicLayer], cache.layers)
    for layer, key, value in zip(layers, keys, values, strict=True):
        layer.keys, layer.values = key, value


def caches(
    reading: Reading, lengths: Sequence[int], *, origin: Origin | None = None
) -> list[Cache]:
    """Take a batch apart into one cache a text, sharing its memory.

    Args:
        reading: Texts just read, so with `hidden`.
        lengths: Tokens of each text without its padding.
        origin: What to note as their origin.

    Raises:
        ValueError: the reading was loaded and not read just now.
    """
    if reading.hidden is None:
        raise ValueError("the reading has no last hidden states: read the text with `Base.read`")
    return [
        Cache(
            keys=[layer[row, :, :length] for layer in reading.keys],
            values=[layer[row, :, :length] for layer in reading.values],
            token_ids=reading.token_ids[row, :length],
            position_ids=torch.arange(length, device=reading.token_ids.device),
            last_hidden=reading.hidden[row, length - 1],
            origin=origin or Origin(),
        )
        for row, length in enumerate(lengths)
    ]


def stack(texts: Sequence[Cache], trunk: PreTrainedModel) -> Reading:
    """Join plain caches into one reading, padded on the right."""
    token_ids = torch.nn.utils.rnn.pad_sequence(
        [cache.token_ids for cache in texts], batch_first=True
    )
    width = token_ids.shape[1]
    return Reading(
        token_ids=token_ids,
        keys=padded_layers([cache.keys for cache in texts], width, left=False),
        values=padded_layers([cache.values for cache in texts], width, left=False),
        embeds=trunk.get_input_embeddings()(token_ids),
    )


def padded_layers(columns: Sequence[Sequence[Tensor]], width: int, *, left: bool) -> list[Tensor]:
    """Per text and layer (kv_heads, cached, head_dim), to per layer the same with a batch axis."""

    def padded(layer: Tensor) -> Tensor:
        missing = width - layer.shape[1]
        return torch.nn.functional.pad(layer, (0, 0, missing, 0) if left else (0, 0, 0, missing))

    return [torch.stack([padded(layer) for layer in row]) for row in zip(*columns, strict=True)]
