"""What a store refuses, each in a class of its own so that a server can answer each in its way."""

from collections.abc import Sequence
from pathlib import Path

from deliberate.core.errors import DeliberateError


class StoreError(DeliberateError):
    """A store that cannot be opened, or that cannot do what it was asked."""


class StoreInUseError(StoreError):
    """A store that another process has opened."""


class StoreFullError(StoreError):
    """A store with no room for a cache, by its budget or on its disk; nothing of it was kept."""


class OverBudgetError(StoreFullError):
    """A cache that the disk budget has no room for; its message holds no path."""


class NoSuchCacheError(StoreError, KeyError):
    """A cache that is not in the store, or is there no longer."""

    __str__ = Exception.__str__  # a KeyError's message stands in quotation marks


class OfflineWorkError(StoreError):
    """Files that the store found and did not write, and so does not delete."""

    def __init__(self, cache_id: str, paths: Sequence[Path]) -> None:
        """Say which files they are."""
        self.names = ", ".join(repr(path.name) for path in paths)
        whole = ", ".join(repr(str(path)) for path in paths)
        super().__init__(
            f"cache {cache_id!r} is in {whole}, which this server did not write: remove that "
            "yourself"
        )
