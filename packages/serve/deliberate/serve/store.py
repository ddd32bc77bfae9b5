"""The store: caches in a folder of cache files, some of them in memory too.

    put --> disk tier (*.st; a budget, least recently used goes first)
    get <-- memory tier (a budget) <-- disk tier, checksum verified
    match: token ids --> the longest stored text that begins them

The files are those that `deliberate prefill` and `augment` write, so that a folder of offline work
is served as it is: files of any name are found by their content, and never changed. What the store
writes is named by its content. `docs/serving-store.md`.
"""

import secrets
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from deliberate.core.cache import Cache, Origin
from deliberate.core.cache_file import SUFFIX, save
from deliberate.core.folder_lock import FolderLock
from deliberate.serve.entry import Entry, Report, State, Usage
from deliberate.serve.index import Item
from deliberate.serve.memory_tier import MemoryTier, num_bytes
from deliberate.serve.served import Served, private
from deliberate.serve.shelf import Shelf
from deliberate.serve.source import Source, examine, read
from deliberate.serve.store_errors import (
    NoSuchCacheError,
    StoreError,
    StoreFullError,
)
from deliberate.serve.store_lock import lock_store
from deliberate.serve.tiers import Tiers


class Store:
    """Caches of one base, in one dtype, with the latents of one coprocessor; thread-safe."""

    def __init__(
        self,
        folder: Path,
        origin: Origin,
        *,
        dtype: torch.dtype,
        disk_bytes: int,
        memory_bytes: int,
        lock: FolderLock | None = None,
    ) -> None:
        """Open a folder, which no other process may open until `close`.

        Args:
            folder: Made if missing.
            origin: The base, and the coprocessor where one is served, by their fingerprints.
            dtype: In which the base's keys and values are held.
            disk_bytes: Most bytes that files written by the store take; files that it finds do
                not count, and are never removed.
            memory_bytes: Most bytes of caches held in memory.
            lock: The folder's, from `lock_store`, where it was taken before; released by `close`.

        Raises:
            StoreError: the folder cannot be made or written.
            StoreInUseError: another process has opened it.
        """
        self.folder = folder
        self._served = Served(
            fingerprint=origin.base_fingerprint,
            dtype=str(dtype).removeprefix("torch."),
            coprocessor=origin.coprocessor_fingerprint,
        )
        self._lock = threading.RLock()
        self._folder_lock = lock_store(folder) if lock is None else lock
        self._closed = False
        self._memory = MemoryTier(memory_bytes)
        try:
            self._shelf = Shelf(
                folder, self._served, budget=disk_bytes, on_change=self._memory.forget
            )
            self._tiers = Tiers(self._shelf, self._memory, self._lock)
            self.refresh()
        except BaseException:
            self._folder_lock.release()
            raise

    def refresh(self) -> None:
        """Take up files that have come into the folder since, and notice those that have gone."""
        there = self._shelf.listed()  # without the lock: it takes long where there are many
        with self._lock:
            self._check_open()
            fresh = self._shelf.scan(there)
        for path in fresh:
            seen = self._shelf.look(path)
            with self._lock:
                self._shelf.take(path, seen)
        with self._lock:
            self._shelf.make_room(0)

    def put(self, cache: Cache, *, decided: bool = False) -> str:
        """Keep a cache, unless one as good of the same text is there.

        Args:
            cache: By the store's base; another coprocessor's latents are left out.
            decided: Whether it is none of `undecided`, from the beginning.

        Returns:
            Its id.

        Raises:
            CacheError: it is of another base or dtype, holds text after its latents, or numbers
                that are not finite.
            StoreFullError: the disk is full, or what is in use leaves no room in the budget;
                nothing of it was kept.
        """
        kept = self._served.part(cache)
        cache_id = self._served.address(kept.token_ids)
        with self._lock:
            self._check_open()
            while (item := self._shelf.index.items.get(cache_id)) is not None:
                if kept.latents is not None and not item.best.latents:
                    break
                if self._tiers.touch(item):
                    item.decided |= decided
                    return cache_id
            self._shelf.make_room(num_bytes(kept), place=self._shelf.place(cache_id))
        self._write(private(kept), cache_id, decided=decided)
        return cache_id

    def get(self, cache_id: str) -> Cache:
        """A cache as its file has it, bit for bit.

        Returns:
            The cache on the CPU, shared with others: to be left as it is.

        Raises:
            NoSuchCacheError: there is none of that id, or its file has gone or is damaged, which
                was then reported.
            OSError: its file cannot be read at the moment.
        """
        with self.hold(cache_id) as item, item.loading:
            return self._tiers.load(item)

    @contextmanager
    def hold(self, cache_id: str) -> Generator[Item]:
        """Keep a cache from being removed to make room, while the block runs.

        Raises:
            NoSuchCacheError: there is none of that id.
        """
        with self._lock:
            item = self._item(cache_id)
            item.pins += 1
        try:
            yield item
        finally:
            with self._lock:
                item.pins -= 1

    def match(self, token_ids: Int[Tensor, " token"] | Sequence[int]) -> tuple[str, int] | None:
        """The longest stored text that begins a given one: its id and its length."""
        with self._lock:
            self._check_open()
            lengths = self._shelf.index.lengths(len(token_ids))
        pairs = list(zip(self._served.addresses(token_ids, lengths), lengths, strict=True))
        with self._lock:
            items = self._shelf.index.items
            return next((pair for pair in reversed(pairs) if pair[0] in items), None)

    def find(self, token_ids: Int[Tensor, " token"] | Sequence[int]) -> tuple[str, Cache] | None:
        """The longest stored text that begins a given one, whose file is whole: cache_id and cache.

        Raises:
            OSError: a file cannot be read at the moment.
        """
        while found := self.match(token_ids):
            try:
                return found[0], self.get(found[0])
            except NoSuchCacheError:  # reported, and no longer matched
                continue
        return None

    def replace(self, cache_id: str, augmented: Cache) -> None:
        """Put a cache with latents in the place of the plain one.

        Args:
            cache_id: Of the plain one.
            augmented: The same text with the served coprocessor's latents.

        Raises:
            NoSuchCacheError: it was deleted meanwhile.
            StoreError: it is not that text, or has not those latents.
            StoreFullError: there is no room for it; the plain one stays.
        """
        self._write(private(self._served.part(augmented)), cache_id, in_place=True)

    def adopt(self, cache_id: str, path: Path) -> None:
        """Do as `replace` does, with a file in `work`; it is verified, and moved or removed.

        Raises:
            CacheError: the file is damaged.
            NoSuchCacheError: the cache was deleted meanwhile.
            StoreError: it is not that text, or has not the served coprocessor's latents.
            StoreFullError: there is no room for it; the plain one stays.
        """
        try:
            source = examine(path, self._served)
            self._install(source, read(source, self._served), cache_id, in_place=True)
        except OSError as error:
            raise StoreFullError(f"cannot take {str(path)!r} over: {error}") from error
        finally:
            path.unlink(missing_ok=True)

    def delete(self, cache_id: str) -> None:
        """Delete a cache and its file; who is using it goes on with what he has.

        Raises:
            NoSuchCacheError: there is none of that id.
            OfflineWorkError: the store found its file and did not write it.
        """
        with self._lock:
            self._shelf.delete(self._item(cache_id))

    def entry(self, cache_id: str) -> Entry:
        """What is known of a cache.

        Raises:
            NoSuchCacheError: there is none of that id.
        """
        with self._lock:
            return self._tiers.entry(self._item(cache_id))

    def entries(self, most: int | None = None, *, after: str = "") -> list[Entry]:
        """What is known of caches, the last used first.

        Args:
            most: No more than these; none is all.
            after: The id of a cache: those that follow it.

        Raises:
            NoSuchCacheError: there is none of the id `after`.
        """
        with self._lock:
            self._check_open()
            return self._tiers.entries(most, self._item(after) if after else None)

    def __contains__(self, cache_id: str) -> bool:
        """Whether there is a cache of that id."""
        with self._lock:
            return cache_id in self._shelf.index.items

    def mark(self, cache_id: str, state: State, *, reason: str = "") -> None:
        """Note what becomes of asking for a cache's latents; nothing if it is gone."""
        with self._lock:
            item = self._shelf.index.items.get(cache_id)
            if item is not None:
                item.state, item.reason = state, reason

    def undecided(self, most: int) -> list[str]:
        """The ids of some plain caches whose latents nobody asked for or did without.

        Args:
            most: No more than these, the last used first; of files that the store did not write,
                only as many as leave all others their place in the budget.
        """
        with self._lock:
            self._check_open()
            return self._tiers.undecided(most)

    def decide(self, cache_id: str) -> bool:
        """Make a cache none of `undecided`; false if it was none of them before."""
        with self._lock:
            item = self._shelf.index.items.get(cache_id)
            if item is None or not item.undecided:
                return False
            item.decided = True
            return True

    def path(self, cache_id: str) -> Path:
        """The file of a cache.

        Raises:
            NoSuchCacheError: there is none of that id.
        """
        with self._lock:
            return self._item(cache_id).best.path

    def work_path(self, cache_id: str) -> Path:
        """A place for a file that `adopt` is to take over."""
        return self._shelf.work / f"{cache_id}.{secrets.token_hex(4)}{SUFFIX}"

    @property
    def reports(self) -> list[Report]:
        """The files that are not served, the latest last."""
        with self._lock:
            return list(self._shelf.rejects.reports)

    @property
    def usage(self) -> Usage:
        """What the store takes, and has done."""
        with self._lock:
            return self._tiers.usage()

    def close(self) -> None:
        """Let another process have the folder; this store does nothing any more."""
        with self._lock:
            self._closed = True
            self._folder_lock.release()

    def _item(self, cache_id: str) -> Item:
        self._check_open()
        item = self._shelf.index.items.get(cache_id)
        if item is None:
            raise NoSuchCacheError(f"there is no cache {cache_id!r}: keep its text first")
        return item

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"the store {str(self.folder)!r} is closed")

    def _write(
        self, cache: Cache, cache_id: str, *, in_place: bool = False, decided: bool = False
    ) -> None:
        path = self.work_path(cache_id)
        try:
            save(cache, path)
            source = examine(path, self._served)
            self._install(source, cache, cache_id, in_place=in_place, decided=decided)
        except OSError as error:
            raise StoreFullError(
                f"the cache cannot be kept in {str(self.folder)!r}: {error}; free some space, or "
                "name another folder"
            ) from error
        finally:
            path.unlink(missing_ok=True)

    def _install(
        self,
        source: Source,
        cache: Cache,
        cache_id: str,
        *,
        in_place: bool,
        decided: bool = False,
    ) -> None:
        if in_place and (source.address != cache_id or not source.latents):
            raise StoreError(
                f"what was written for cache {cache_id!r} is not that text with its latents"
            )
        with self._lock:
            self._check_open()
            if in_place:
                self._item(cache_id)
            self._tiers.install(source, cache, decided=decided)
