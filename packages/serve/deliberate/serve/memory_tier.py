"""Caches that are held in memory, so that their files need not be read again.

    least recently used ... most recently used, within a budget of bytes

Not thread-safe by itself.
"""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor

from deliberate.core.cache import Cache
from deliberate.serve.source import Identity


class MemoryTier:
    """Caches by their id, each with the state of the file that it was read from."""

    def __init__(self, budget: int) -> None:
        """Begin empty.

        Args:
            budget: Most bytes of tensors that are held; 0 holds none.
        """
        self.budget = budget
        self.used = 0
        self._held: OrderedDict[str, tuple[Cache, Identity, int]] = OrderedDict()

    def __contains__(self, cache_id: str) -> bool:
        """Whether a cache is held."""
        return cache_id in self._held

    def get(self, cache_id: str, identity: Identity) -> Cache | None:
        """The cache, unless its file has changed since; it becomes the last used."""
        cache, known, _ = self._held.get(cache_id, (None, None, 0))
        if cache is None or known != identity:
            self.forget(cache_id)
            return None
        self._held.move_to_end(cache_id)
        return cache

    def keep(
        self, cache_id: str, cache: Cache, identity: Identity, *, in_use: Callable[[str], bool]
    ) -> None:
        """Hold a cache, if there is room beside those that are in use.

        Args:
            cache_id: Its id.
            cache: On the CPU, with memory of its own.
            identity: Of its file.
            in_use: Whether a held cache must stay.
        """
        self.forget(cache_id)
        size = num_bytes(cache)
        excess = self.used + size - self.budget
        victims = []
        for other, (_, _, held) in self._held.items():
            if excess <= 0:
                break
            if not in_use(other):
                victims.append(other)
                excess -= held
        if excess > 0:
            return
        for other in victims:
            self.forget(other)
        self._held[cache_id] = (cache, identity, size)
        self.used += size

    def renew(self, cache_id: str, identity: Identity) -> None:
        """Note that a cache's file has another state and the same content."""
        if cache_id in self._held:
            cache, _, size = self._held[cache_id]
            self._held[cache_id] = (cache, identity, size)

    def forget(self, cache_id: str) -> None:
        """Let a cache go."""
        self.used -= self._held.pop(cache_id, (None, None, 0))[2]


def num_bytes(cache: Cache) -> int:
    """Bytes of a cache's tensors."""
    return sum(tensor.nbytes for tensor in tensors(cache))


def tensors(cache: Cache) -> list[Tensor]:
    """All tensors of a cache."""
    single = [cache.token_ids, cache.position_ids, cache.last_hidden]
    latents = [cache.latents, cache.latents_last_hidden]
    return [*cache.keys, *cache.values, *single, *(each for each in latents if each is not None)]
