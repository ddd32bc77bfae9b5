"""Which files hold which text, and which stored text begins a given one.

text --address--> Item: sources, the best first
"""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from deliberate.serve.address import addresses
from deliberate.serve.entry import State
from deliberate.serve.served import Served
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

    used: int = 0
    """When it was last used, in nanoseconds since 1970."""

    loading: threading.Lock = field(default_factory=threading.Lock)
    """Held by the one who reads its file."""

    @property
    def best(self) -> Source:
        """The file that is served."""
        return self.sources[0]


class Index:
    """Items by address; not thread-safe by itself."""

    def __init__(self, served: Served) -> None:
        self.items: dict[str, Item] = {}
        self._served = served
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

    def beginnings(self, token_ids: Tensor | Sequence[int]) -> list[tuple[str, int]]:
        """The stored texts that begin a given one, with their lengths, the longest first."""
        if self._sorted is None:
            self._sorted = sorted(self._lengths)
        lengths = [length for length in self._sorted if length <= len(token_ids)]
        served = self._served
        found = addresses(token_ids, lengths, fingerprint=served.fingerprint, dtype=served.dtype)
        pairs = list(zip(found, lengths, strict=True))
        return [
            (cache_id, length) for cache_id, length in reversed(pairs) if cache_id in self.items
        ]
