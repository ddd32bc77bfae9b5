"""Caches of a tiny base, and stores for them."""

import dataclasses
import importlib.util
import queue
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from deliberate.core import augment, prefill
from deliberate.core.base import Base
from deliberate.core.cache import Cache
from deliberate.serve.store import Store
from deliberate.serve.thinker import Thinker

COPROCESSOR = "c0ffee"
PATIENCE = 60.0
"""Seconds until a test gives up on something that should come at once."""


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


class Told(queue.Queue):
    """The ids of caches that are done, as they come."""

    def take(self, count: int) -> list[str]:
        """The next ones."""
        return [self.get(timeout=PATIENCE) for _ in range(count)]


@pytest.fixture
def told() -> Told:
    """Collects the ids of what is done."""
    return Told()


@pytest.fixture
def begin():
    """Make thinkers, and close them at the end."""
    begun = []

    def begin(*arguments, **settings) -> Thinker:
        begun.append(Thinker(*arguments, **settings))
        return begun[-1]

    yield begin
    for thinker in begun:
        thinker.close()


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


@pytest.fixture(scope="session")
def vllm_stand_in() -> Callable[..., Any]:
    """Runs stand-ins for a vLLM server."""
    path = Path(__file__).with_name("vllm_stand_in.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.vllm_stand_in


@pytest.fixture
def vllm(vllm_stand_in):
    """Runs stand-ins until the test ends."""
    with ExitStack() as stack:
        yield lambda base: stack.enter_context(vllm_stand_in(base))
