"""The coprocessor in a thread, on the server's own weights: no second copy in memory.

    work --under the lock that guards the base--> augment --> Store.replace

The adapter switch and the attention setting are state of a module that decoding uses too, hence the
lock. A thread cannot be killed: past the time limit it is no longer waited for, but for as long as
it hangs it holds the lock, and decoding with it. Where that must not happen, use a process.
"""

import threading
from contextlib import AbstractContextManager

from deliberate.core.augment import augment
from deliberate.core.base import Base
from deliberate.core.cache import Cache
from deliberate.core.checkpoint import Trained
from deliberate.serve.served import placed
from deliberate.serve.store import Store
from deliberate.serve.worker import ThoughtError, Worker, WorkerLostError


class ThreadWorker(Worker):
    """A thread for each cache, one at a time."""

    def __init__(
        self,
        base: Base,
        trained: Trained,
        *,
        lock: AbstractContextManager[object],
        limit: float,
    ) -> None:
        """Take over no work yet.

        Args:
            base: The server's.
            trained: The coprocessor, on the base's device.
            lock: Guards every other use of the base's weights.
            limit: Seconds that one cache is waited for.
        """
        self._base, self._trained, self._lock, self._limit = base, trained, lock, limit
        self._thread: threading.Thread | None = None
        self._answered = threading.Event()

    @property
    def alive(self) -> bool:
        """Whether no thread hangs."""
        return self._thread is None

    def start(self) -> None:
        """Wait once more for a thread that hangs.

        Raises:
            WorkerLostError: it hangs still.
        """
        if self._thread is not None:
            self._thread.join(self._limit)
            if self._thread.is_alive():
                raise WorkerLostError("the coprocessor's thread hangs and cannot be stopped")
            self._thread = None

    def work(self, store: Store, cache_id: str) -> None:
        """Augment a cache, and replace the plain one in the store.

        Raises:
            ThoughtError: the coprocessor could not.
            WorkerLostError: it did not answer in time.
        """
        plain = store.get(cache_id).text_part()
        results: list[Cache | Exception] = []
        self._answered.clear()
        self._thread = threading.Thread(target=self._augment, args=(plain, results), daemon=True)
        self._thread.start()
        self._answered.wait(self._limit)
        if not results:
            raise WorkerLostError(f"the coprocessor did not answer within {self._limit:g} s")
        self._thread.join()
        self._thread = None
        [result] = results
        if isinstance(result, Exception):
            raise ThoughtError(str(result) or type(result).__name__) from result
        store.replace(cache_id, result)

    def stop(self) -> None:
        """Wait no longer for the thread, which ends by itself or with the process."""
        self._answered.set()

    def _augment(self, plain: Cache, results: list[Cache | Exception]) -> None:
        trained = self._trained
        try:
            with self._lock:
                here = placed(plain, self._base.device)
                results += augment(
                    self._base,
                    trained.coprocessor,
                    [here],
                    name=trained.id,
                    fingerprint=trained.fingerprint,
                )
        except Exception as error:  # whatever it is, only latents are missing
            results.append(error)
        self._answered.set()
