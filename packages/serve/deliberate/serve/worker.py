"""Who writes latents for stored caches, and how it can fail.

    Thinker --one cache at a time--> Worker --augmented file--> Store

A process is one such, a thread another.
"""

from abc import ABC, abstractmethod

from deliberate.core.errors import DeliberateError
from deliberate.serve.store import Store


class ThoughtError(DeliberateError):
    """A cache that got no latents; the worker is well."""


class WorkerLostError(DeliberateError):
    """A worker that died or did not answer in time; another may do better."""


class BrokenWorkerError(DeliberateError):
    """A worker that cannot begin, nor could another like it."""


class Worker(ABC):
    """Writes latents for one cache at a time."""

    @property
    @abstractmethod
    def alive(self) -> bool:
        """Whether it can be given work."""

    @abstractmethod
    def start(self) -> None:
        """Make it ready, afresh if it was lost.

        Raises:
            BrokenWorkerError: it cannot begin, however often it is tried.
            WorkerLostError: it died or did not get ready in time.
        """

    @abstractmethod
    def work(self, store: Store, cache_id: str) -> None:
        """Write latents for a cache, and put them in the store.

        Raises:
            DeliberateError: the cache or the store does not allow it.
            ThoughtError: the coprocessor could not.
            WorkerLostError: it died or did not answer in time.
        """

    @abstractmethod
    def stop(self) -> None:
        """End it, in the middle of its work if need be; from any thread, and for good."""
