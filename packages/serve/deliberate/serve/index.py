"""Which files hold which text.

    text --address--> Item: its files, the best first

Not thread-safe by itself.
"""

import threading
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deliberate.serve.entry import State
from deliberate.serve.source import Source


@dataclass(slots=True, kw_only=True, eq=False)
class Item:
    """One text in the store."""

    id: str
    """Its address."""

    tokens: int
    """Its length."""

    sources: list[Source] = field(default_factory=list)
    """Files that hold it, the best first."""

    pins: int = 0
    """How many use it at the moment."""

    state: Literal["", State] = ""
    """What became of asking for latents: `augmenting`, `failed`, or nothing yet."""

    reason: str = ""
    """Why it failed."""

    decided: bool = False
    """Whether its latents are nobody's to ask for but a request's: one did without them, the gate
    found them not worth it, or it had its turn in the backlog."""

    used: int = 0
    """When it was last used, in nanoseconds since 1970."""

    loading: threading.Lock = field(default_factory=threading.Lock)
    """Held by the one who reads its file."""

    @property
    def best(self) -> Source:
        """The file that is served."""
        return self.sources[0]

    @property
    def undecided(self) -> bool:
        """Whether it is plain, and nothing was said of its latents yet."""
        return not (self.best.latents or self.decided or self.state in {"augmenting", "failed"})


class Index:
    """Items by address."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self._of_path: dict[Path, Item] = {}
        self._lengths: Counter[int] = Counter()
        self._sorted: list[int] | None = None

    def __contains__(self, path: Path) -> bool:
        """Whether a file is one of an item's."""
        return path in self._of_path

    def item_of(self, path: Path) -> Item | None:
        """The item that a file belongs to."""
        return self._of_path.get(path)

    def source_of(self, path: Path) -> Source | None:
        """What is noted of a file."""
        item = self._of_path.get(path)
        return next((each for each in item.sources if each.path == path), None) if item else None

    def paths(self) -> list[Path]:
        """All files."""
        return list(self._of_path)

    def add(self, source: Source) -> Item:
        """Note a file, in the place of what was noted of it."""
        item = self.items.get(source.address)
        if item is None:
            item = self.items[source.address] = Item(id=source.address, tokens=source.tokens)
            self._lengths[item.tokens] += 1
            self._sorted = None
        item.sources = [each for each in item.sources if each.path != source.path] + [source]
        if self._of_path.get(source.path, item) is not item:
            self.drop(source.path)
        self._of_path[source.path] = item
        self.order(item)
        return item

    def order(self, item: Item) -> None:
        """Put an item's best file first."""
        item.sources.sort(key=lambda source: (-source.rank, not source.own))

    def drop(self, path: Path) -> Item | None:
        """Forget a file.

        Returns:
            Its item, where no file of it is left and it is forgotten too.
        """
        item = self._of_path.pop(path, None)
        if item is None:
            return None
        item.sources = [each for each in item.sources if each.path != path]
        if item.sources:
            return None
        del self.items[item.id]
        self._lengths[item.tokens] -= 1
        if not self._lengths[item.tokens]:
            del self._lengths[item.tokens]
        self._sorted = None
        return item

    @property
    def augmented(self) -> int:
        """Items whose best file has latents."""
        return sum(bool(item.best.latents) for item in self.items.values())

    def lengths(self, most: int) -> list[int]:
        """The different lengths of stored texts up to one, growing."""
        if self._sorted is None:
            self._sorted = sorted(self._lengths)
        return self._sorted[: bisect_right(self._sorted, most)]
