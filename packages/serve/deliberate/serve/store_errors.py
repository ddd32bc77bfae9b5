"""What a store refuses, each in a class of its own so that a server can answer each in its way."""

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
    """A file that the store found and did not write, and so does not delete."""
