"""What a store keeps caches for: one base in one dtype, and one coprocessor.

    any cache --part--> what of it these models can go on from

And caches from one device to another.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from deliberate.core.cache import Cache
from deliberate.core.errors import CacheError
from deliberate.serve.address import address, addresses


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """The models that a store keeps caches for."""

    fingerprint: str
    """The base's."""

    dtype: str
    """In which its keys and values are held, such as `float32`."""

    coprocessor: str
    """The coprocessor's fingerprint; empty where none is served."""

    def address(self, token_ids: Int[Tensor, " token"] | Sequence[int]) -> str:
        """Where a text's cache is."""
        return address(token_ids, fingerprint=self.fingerprint, dtype=self.dtype)

    def addresses(
        self, token_ids: Int[Tensor, " token"] | Sequence[int], lengths: Iterable[int]
    ) -> Iterator[str]:
        """Where the caches of a text's beginnings are, of growing lengths."""
        return addresses(token_ids, lengths, fingerprint=self.fingerprint, dtype=self.dtype)

    def part(self, cache: Cache) -> Cache:
        """The cache with the served coprocessor's latents if it has them, else its text.

        Raises:
            CacheError: it is of another base or dtype, or holds text after its latents.
        """
        made_by, held = cache.origin, str(cache.keys[0].dtype).removeprefix("torch.")
        if made_by.base_fingerprint != self.fingerprint:
            raise CacheError(
                f"the cache is of base {made_by.base!r} ({made_by.base_fingerprint}) and the store "
                f"keeps those of {self.fingerprint}: prefill the text again"
            )
        if held != self.dtype:
            raise CacheError(
                f"the cache holds {held} and the store keeps {self.dtype}: prefill the text again"
            )
        if cache.followed:
            raise CacheError(
                "a stored cache ends with its text or its latents: keep what was "
                "there before reading on"
            )
        ours = made_by.coprocessor_fingerprint == self.coprocessor != ""
        return cache if ours and cache.latents is not None else cache.text_part()


def private(cache: Cache) -> Cache:
    """A copy on the CPU that shares memory with nothing."""
    return _mapped(cache, lambda tensor: tensor.detach().to("cpu", copy=True).contiguous())


def placed(cache: Cache, device: torch.device) -> Cache:
    """The cache on a device, sharing memory where it is there already."""
    return _mapped(cache, lambda tensor: tensor.to(device))


def _mapped(cache: Cache, change: Callable[[Tensor], Tensor]) -> Cache:
    single = {
        name: change(value)
        for name in ("token_ids", "position_ids", "last_hidden", "latents", "latents_last_hidden")
        if (value := getattr(cache, name)) is not None
    }
    keys, values = (
        [change(layer) for layer in cache.keys],
        [change(layer) for layer in cache.values],
    )
    return dataclasses.replace(cache, **single, keys=keys, values=values)
