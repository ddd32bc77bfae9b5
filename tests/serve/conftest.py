"""Caches of a tiny base, and stores for them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from deliberate.core import augment, prefill
from deliberate.core.base import Base
from deliberate.core.cache import Cache
from deliberate.serve.store import Store

COPROCESSOR = "c0ffee"


@pytest.fixture
def read(llama: Base) -> Callable[..., Cache]:
    """Read a text of some token ids."""

    def read(*token_ids: int) -> Cache:
        return prefill(llama, [torch.tensor(token_ids)])[0]

    return read


@pytest.fixture
def think(llama: Base, make) -> Callable[..., Cache]:
    """Ask for latents over a plain cache."""
    coprocessor = make(llama, "warm")

    def think(cache: Cache, *, fingerprint: str = COPROCESSOR) -> Cache:
        [found] = augment(llama, coprocessor, [cache], name="tiny", fingerprint=fingerprint)
        return found

    return think


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def open_store(llama: Base, folder: Path):
    """Open stores on a folder; all are closed at the end."""
    opened = []

    def open_store(
        where: Path = folder,
        *,
        disk: int = 10**9,
        memory: int = 10**9,
        coprocessor: str = COPROCESSOR,
        dtype: torch.dtype = torch.float32,
    ) -> Store:
        origin = dataclasses.replace(llama.origin, coprocessor_fingerprint=coprocessor)
        store = Store(where, origin, dtype=dtype, disk_bytes=disk, memory_bytes=memory)
        opened.append(store)
        return store

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def same():
    """Whether two caches are equal, bit for bit, with what they note."""

    def same(one: Cache, other: Cache) -> bool:
        def bits(cache: Cache):
            single = [
                cache.token_ids,
                cache.position_ids,
                cache.last_hidden,
                cache.latents,
                cache.latents_last_hidden,
            ]
            return [*cache.keys, *cache.values, *(each for each in single if each is not None)]

        mine, yours = bits(one), bits(other)
        return (
            one.origin == other.origin
            and len(mine) == len(yours)
            and all(a.dtype == b.dtype and a.equal(b) for a, b in zip(mine, yours, strict=True))
        )

    return same
