"""From an id to its cache: the memory tier over the disk tier.

    item --memory, its file unchanged--> cache
         --file, read whole, checksum verified--> cache, from now on in memory
         --no whole file--> reported, and gone

Files are read without the store's lock.
"""

import logging
import threading

from deliberate.core.cache import Cache
from deliberate.core.errors import CacheError
from deliberate.serve.entry import Entry, Usage
from deliberate.serve.index import Item
from deliberate.serve.memory_tier import MemoryTier
from deliberate.serve.shelf import Shelf
from deliberate.serve.source import Identity, OtherContentError, Source, read
from deliberate.serve.store_errors import NoSuchCacheError

log = logging.getLogger(__name__)


class Tiers:
    """Memory over disk, under the store's lock."""

    def __init__(self, shelf: Shelf, memory: MemoryTier, lock: "threading.RLock") -> None:
        self._shelf, self._memory, self._lock = shelf, memory, lock

    def load(self, item: Item) -> Cache:
        """An item's cache, on the CPU and shared.

        Args:
            item: Its `loading` lock is held by the caller.

        Raises:
            NoSuchCacheError: no file of it is whole.
            OSError: a file cannot be read at the moment.
        """
        while True:
            with self._lock:
                if not item.sources:
                    raise NoSuchCacheError(f"cache {item.id!r} is gone: keep its text again")
                source = item.best
            cache = self._attempt(item, source)
            if cache is not None:
                return cache

    def install(self, source: Source, cache: Cache, *, decided: bool) -> None:
        """Put a file just written in its place, and hold what is in it in memory.

        Args:
            source: The file.
            cache: What is in it.
            decided: Whether its item is decided from now on.

        Raises:
            StoreError: it is not by the models that are served.
            StoreFullError: what is in use leaves no room for it.
        """
        item = self._shelf.install(source)
        item.decided |= decided
        if item.best is source:
            item.state, item.reason = "", ""
            self.keep(item, cache)
        self.touch(item)

    def keep(self, item: Item, cache: Cache) -> None:
        """Hold a cache in memory whose file has just been written or read."""
        items = self._shelf.index.items
        self._memory.keep(
            item.id,
            cache,
            item.best.identity,
            in_use=lambda cache_id: cache_id in items and items[cache_id].pins > 0,
        )

    def touch(self, item: Item) -> bool:
        """Make an item the last used; false if its file has gone, which is reported."""
        path = item.best.path
        try:
            if path not in self._shelf.own:
                path.stat()
            self._shelf.touch(item)
        except FileNotFoundError:
            self._shelf.lose(path, _deleted(item.best))
            return False
        self._memory.renew(item.id, item.best.identity)
        return True

    def entry(self, item: Item) -> Entry:
        """What is known of an item."""
        best = item.best
        return Entry(
            id=item.id,
            tokens=item.tokens,
            bytes=best.identity.size,
            state="augmented" if best.latents else item.state or "plain",
            reason="" if best.latents else item.reason,
            latents=best.latents,
            tier="memory" if item.id in self._memory else "disk",
            own=best.path in self._shelf.own,
            used=item.used / 1e9,
        )

    def entries(self, most: int | None, after: Item | None) -> list[Entry]:
        """What is known of items, the last used first; of those that follow one of them."""
        items = sorted(self._shelf.index.items.values(), key=lambda item: -item.used)
        first = 0 if after is None else items.index(after) + 1
        return [self.entry(item) for item in items[first:][:most]]

    def undecided(self, most: int) -> list[str]:
        """The ids of plain caches of which nothing was said yet, the last used first."""
        shelf, ids = self._shelf, []
        items = [item for item in shelf.index.items.values() if item.undecided]
        room = shelf.own.budget - shelf.own.used
        for item in sorted(items, key=lambda item: -item.used):
            if item.best.path not in shelf.own:  # its latents come in a further file
                if item.best.identity.size > room:
                    continue
                room -= item.best.identity.size
            ids.append(item.id)
            if len(ids) == most:
                break
        return ids

    def usage(self) -> Usage:
        """What both tiers take, and what was done."""
        return Usage(
            caches=len(self._shelf.index.items),
            augmented=self._shelf.index.augmented,
            disk_bytes=self._shelf.own.used,
            memory_bytes=self._memory.used,
            evicted=self._shelf.evicted,
            unfit=self._shelf.unfit,
        )

    def _attempt(self, item: Item, source: Source) -> Cache | None:
        """The cache from one of an item's files, or nothing if that file is not what it was."""
        try:
            with self._lock:  # or it is touched between the two
                identity, known = Identity.of(source.path.stat()), source.identity
                cache = self._memory.get(item.id, identity)
            if cache is None:
                if identity != known:
                    log.warning("%r was changed under the server: read again", str(source.path))
                cache = read(source, self._shelf.served)
        except FileNotFoundError:
            return self._lost(item, source, CacheError(_deleted(source)))
        except CacheError as error:
            return self._lost(item, source, error)
        with self._lock:
            if source in item.sources:  # neither deleted nor replaced while it was read
                self._shelf.index.order(item)
                if source is item.best:
                    self.keep(item, cache)
                    self.touch(item)
        return cache

    def _lost(self, item: Item, source: Source, error: CacheError) -> None:
        with self._lock:
            if source not in item.sources:
                return
            if isinstance(error, OtherContentError):
                log.warning("changed under the server: %s", error)
                self._shelf.take(source.path, self._shelf.look(source.path))
            elif source.path.exists():
                self._shelf.damaged(source.path, error)
            else:
                self._shelf.lose(source.path, str(error))


def _deleted(source: Source) -> str:
    return f"{str(source.path)!r} was deleted under the server"
