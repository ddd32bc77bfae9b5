"""The disk tier: a folder of cache files, what is in it, and what had to go.

    folder --scan--> sources in the index, and reports of what is not served
    a file just written --install--> under the name of its content

Not thread-safe by itself, but for `listed` and `look`.
"""

import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from deliberate.core.cache_file import SUFFIX
from deliberate.core.errors import CacheError
from deliberate.serve.address import file_name
from deliberate.serve.index import Index, Item
from deliberate.serve.own_files import OwnFiles
from deliberate.serve.rejects import Rejects
from deliberate.serve.served import Served
from deliberate.serve.source import Identity, Source, examine
from deliberate.serve.store_errors import OfflineWorkError, StoreError

WORK = ".work"
"""Subfolder of files that are being written."""

log = logging.getLogger(__name__)


class Shelf:
    """Cache files in a folder."""

    def __init__(
        self, folder: Path, served: Served, *, budget: int, on_change: Callable[[str], None]
    ) -> None:
        """Begin empty, and clear away what an earlier process had not finished.

        Args:
            folder: The folder, locked.
            served: The models whose files are served.
            budget: Most bytes that the store's own files take.
            on_change: Told the id of each text whose file went or changed.
        """
        self.folder = folder
        self.index = Index()
        self.own = OwnFiles(budget)
        self.rejects = Rejects(folder)
        self.evicted = 0
        self.served, self._on_change = served, on_change
        self._refused: dict[Path, Identity] = {}
        self.work = folder / WORK
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()

    @property
    def unfit(self) -> int:
        """Files that are not served, here or set aside."""
        return len(self._refused) + self.rejects.aside

    def listed(self) -> dict[Path, Identity]:
        """The cache files in the folder."""
        there = {}
        for path in self.folder.glob(f"*{SUFFIX}"):
            if not path.name.startswith("."):
                with suppress(OSError):  # it has gone just now
                    there[path] = Identity.of(path.stat())
        return there

    def scan(self, there: Mapping[Path, Identity]) -> list[Path]:
        """Find what is new in the folder, the oldest first, and report what has gone.

        Args:
            there: From `listed`; may be older than what is known here.
        """

        def gone(paths: Iterable[Path]) -> list[Path]:
            return [path for path in paths if path not in there and not path.exists()]

        for path in gone(self.index.paths()):
            self.lose(path, f"{str(path)!r} was deleted under the server")
        for path in gone(self.own.paths()):
            self.own.forget(path)  # of another base, which was reported once
        for path in gone(list(self._refused)):
            del self._refused[path]
        new = [path for path, identity in there.items() if identity != self._known(path)]
        return sorted(new, key=lambda path: (there[path].modified, path))

    def look(self, path: Path) -> Source | CacheError | None:
        """What a file is, or why it is none; nothing if it is gone."""
        try:
            return examine(path, self.served)
        except OSError:
            return None
        except CacheError as error:
            return error

    def take(self, path: Path, seen: Source | CacheError | None) -> None:
        """Note a file, by what was seen of it; one that changed since waits for the next time."""
        try:
            now = Identity.of(path.stat())
        except OSError:  # it has gone, or never was: a link to nowhere
            now = seen = None
        if now is not None and now == self._known(path):
            return  # it was written while others were looked at
        if isinstance(seen, Source) and seen.identity != now:
            return
        noted = self.index.source_of(path)
        if not isinstance(seen, Source):
            self._forget(path)
            if seen is not None:
                self._refuse(path, seen)
            return
        if noted is not None and (seen.refusal or seen.address != noted.address):
            self._forget(path)
        self.own.forget(path)
        if seen.own:
            self.own.found(path, size=seen.identity.size, changed=seen.identity.modified)
        if seen.refusal:
            self._refused[path] = seen.identity
            self.rejects.report(path, f"{str(path)!r} {seen.refusal}")
            return
        self._refused.pop(path, None)
        item = self.index.add(seen)
        item.used = max(item.used, seen.identity.modified)

    def make_room(self, size: int, *, place: Path | None = None) -> None:
        """Remove the files least recently used until so many bytes fit.

        Args:
            size: Bytes to be added.
            place: A file that will be replaced by them, and stays until then.
        """
        victims = self.own.victims(
            size,
            in_use=lambda path: path == place or self._is_pinned(path),
            replaced=self.own.size(place) if place else 0,
        )
        for path in victims:
            log.info("removed %s to make room", path.name)
            self.evicted += 1
            self.remove(path)

    def place(self, cache_id: str) -> Path:
        """Where the store writes a cache."""
        return self.folder / file_name(cache_id)

    def install(self, source: Source) -> Item:
        """Give a file just written its place, unless a better one has it.

        Args:
            source: In the work folder; moved.

        Raises:
            StoreError: it is not of a text by the models that are served.
        """
        if source.refusal:
            raise StoreError(f"the cache {source.refusal}: serve it with the models that made it")
        item = self.index.items.get(source.address)
        if item is not None and item.best.rank > source.rank:
            return item
        target = self.place(source.address)
        self.make_room(source.identity.size, place=target)
        source.path.replace(target)
        source.path, source.own = target, True
        source.identity = Identity.of(target.stat())
        self.own.add(target, source.identity.size)
        self._refused.pop(target, None)
        item = self.index.add(source)
        self._on_change(item.id)
        return item

    def touch(self, item: Item) -> None:
        """Make an item's file the last used; files that the store did not write stay as they are.

        Raises:
            OSError: the file is gone.
        """
        item.used = self.own.now()
        if item.best.path in self.own:
            item.best.identity = self.own.touch(item.best.path, item.used)

    def delete(self, item: Item) -> None:
        """Delete all files of an item.

        Raises:
            OfflineWorkError: the store found one and did not write it.
        """
        found = [source.path for source in item.sources if source.path not in self.own]
        if found:
            raise OfflineWorkError(item.id, found)
        for source in list(item.sources):
            self.remove(source.path)

    def remove(self, path: Path) -> None:
        """Delete a file of the store's own."""
        path.unlink(missing_ok=True)
        self._refused.pop(path, None)  # of another base
        self._forget(path)

    def lose(self, path: Path, reason: str) -> None:
        """Report a file that has gone."""
        self._forget(path)
        self.rejects.report(path, reason)

    def damaged(self, path: Path, error: CacheError) -> None:
        """Report a file that turned out to be damaged, and serve it no more."""
        self._forget(path)
        self._refuse(path, error)

    def _refuse(self, path: Path, error: CacheError) -> None:
        if isinstance(error.__cause__, OSError):  # it cannot be read now: no reason to move it
            self.rejects.report(path, str(error))
        else:
            self.rejects.damaged(path, str(error))
        with suppress(OSError):
            self._refused[path] = Identity.of(path.stat())

    def _forget(self, path: Path) -> None:
        item = self.index.item_of(path)
        self.own.forget(path)
        self.index.drop(path)
        if item is not None:
            self._on_change(item.id)

    def _known(self, path: Path) -> Identity | None:
        source = self.index.source_of(path)
        return source.identity if source else self._refused.get(path)

    def _is_pinned(self, path: Path) -> bool:
        item = self.index.item_of(path)
        return item is not None and item.pins > 0
