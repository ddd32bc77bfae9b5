"""The thinker: latents for stored caches, in the background, one cache after the other.

    ask --queue, urgent first--> Worker --latents--> Store, and who asked is told
        --queue full--> refused
    offer --nothing else to do--> Worker
    worker dead or hanging --started again--> ... --too often in a row--> absent

Whatever becomes of it, the plain caches stay: the only thing that can be missing is latents.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from deliberate.core.errors import DeliberateError
from deliberate.serve.store import Store
from deliberate.serve.store_errors import NoSuchCacheError, StoreError
from deliberate.serve.worker import BrokenWorkerError, Worker, WorkerLostError

OnDone = Callable[[str], None]
"""Called once with a cache's id when it is clear whether it gets latents; the store says which."""

ThinkerState = Literal["starting", "ready", "busy", "absent"]
"""Getting ready; waiting for work; at work; or there will be no more latents."""

LOOK = 1.0
"""Seconds between two looks at a worker that waits for work: whether it is still there."""

log = logging.getLogger(__name__)


class QueueFullError(DeliberateError):
    """As many caches wait to be thought over as may; this one stays plain for now."""


@dataclass(slots=True, eq=False)
class _Job:
    """A cache that was asked for."""

    cache_id: str
    told: list[OnDone] = field(default_factory=list)
    worthwhile: Callable[[str], bool] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What a thinker has done."""

    queued: int
    """Caches that wait for their turn."""

    augmented: int
    """Caches that got latents."""

    failed: int
    """Caches that did not, because they or the worker failed."""

    lost: int
    """How often the worker died or hung."""

    crowded: int
    """Caches that were refused, or let go again, because too many waited."""


class Thinker:
    """Asks a worker for latents, in a thread of its own; thread-safe."""

    def __init__(
        self, store: Store, worker: Worker | None, *, restarts: int = 3, queue: int = 256
    ) -> None:
        """Start the worker, without waiting for it.

        Args:
            store: Where the caches are, and come back with latents.
            worker: Writes them; none where no coprocessor is served.
            restarts: How often in a row the worker may be lost and started again.
            queue: Caches that wait for their turn at most.
        """
        self._store, self._worker, self._restarts = store, worker, restarts
        self._changed = threading.Condition()
        self._urgent: dict[str, _Job] = {}  # both in the order of their turns
        self._others: dict[str, _Job] = {}
        self._offered: deque[_Job] = deque()
        self._most = queue
        self._now: _Job | None = None
        self._in_a_row = self._lost = self._augmented = self._failed = self._crowded = 0
        self._closing = False
        self._state: ThinkerState = "starting"
        self._reason = ""
        self._thread: threading.Thread | None = None
        if worker is None:
            self._state, self._reason = "absent", "no coprocessor is served"
        else:
            self._thread = threading.Thread(
                target=self._run, args=(worker,), name="thinker", daemon=True
            )
            self._thread.start()

    @property
    def state(self) -> ThinkerState:
        """What it is doing."""
        return self._state

    @property
    def reason(self) -> str:
        """Why it is absent; otherwise what was last wrong with its worker, or nothing."""
        return self._reason

    @property
    def counts(self) -> Counts:
        """What it has done."""
        with self._changed:
            return Counts(
                queued=self._queued,
                augmented=self._augmented,
                failed=self._failed,
                lost=self._lost,
                crowded=self._crowded,
            )

    def ask(self, cache_id: str, on_done: OnDone | None = None, *, urgent: bool = False) -> None:
        """Ask for a cache's latents; asked twice for one cache, it is thought over once.

        Args:
            cache_id: In the store; one that has latents, or failed before, is done at once.
            on_done: Called once, from any thread, whatever becomes of it.
            urgent: A request waits for it: it comes before those that nobody waits for, and where
                the queue is full, in the place of the last of those.

        Raises:
            NoSuchCacheError: there is no such cache.
            QueueFullError: too many wait, and nothing is changed.
        """
        told = [on_done] if on_done is not None else []
        let_go = None
        with self._changed:  # what is at work is settled in the store before it is let go here
            settled = self._store.entry(cache_id).state in {"augmented", "failed"}
            settled |= self._state == "absent" or self._closing
            if not settled:
                let_go = self._enqueue(cache_id, told, urgent=urgent)
        if settled:
            _tell(cache_id, told)
        if let_go is not None:
            self._settle(let_go)

    def offer(self, cache_ids: Iterable[str], worthwhile: Callable[[str], bool]) -> None:
        """Tell of caches that nobody asks for, to be thought over while nothing else is to be done.

        Args:
            cache_ids: In the place of those that were offered before; each has one turn.
            worthwhile: Called in the thinker's thread before a cache's turn: whether to think it
                over. It may fail as `Store.get` does.
        """
        with self._changed:
            self._offered = deque(_Job(each, worthwhile=worthwhile) for each in cache_ids)
            self._changed.notify_all()

    def cancel(self, cache_id: str) -> None:
        """Ask no longer for a cache; one that is at work is finished."""
        with self._changed:
            job = self._urgent.pop(cache_id, None) or self._others.pop(cache_id, None)
        if job is not None:
            self._settle(job)

    def close(self) -> None:
        """End at once; who still waits is told, and the caches stay plain."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._worker is not None:
            self._worker.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(10)  # a thread of a worker that hangs cannot be waited for

    @property
    def _queued(self) -> int:
        return len(self._urgent) + len(self._others)

    def _enqueue(self, cache_id: str, told: list[OnDone], *, urgent: bool) -> _Job | None:
        """Add a cache to the queue; returns the one that made way for it, if one had to."""
        let_go = None
        job = self._asked_for(cache_id)
        if job is None:
            let_go = self._make_way(urgent=urgent)
            job = _Job(cache_id)
            (self._urgent if urgent else self._others)[cache_id] = job
            self._store.mark(cache_id, "augmenting")
        elif urgent and cache_id in self._others:
            self._urgent[cache_id] = self._others.pop(cache_id)
        job.told += told
        self._changed.notify_all()
        return let_go

    def _asked_for(self, cache_id: str) -> _Job | None:
        """The job of a cache that waits or is at work."""
        if self._now is not None and self._now.cache_id == cache_id:
            return self._now
        return self._urgent.get(cache_id) or self._others.get(cache_id)

    def _make_way(self, *, urgent: bool) -> _Job | None:
        """See that there is room for one more; returns what was let go for it.

        Raises:
            QueueFullError: there is none.
        """
        if self._queued < self._most:
            return None
        self._crowded += 1
        if not urgent or not self._others:
            raise QueueFullError(
                f"as many texts wait for the coprocessor as may, {self._most}: come again later"
            )
        return self._others.popitem()[1]

    def _run(self, worker: Worker) -> None:
        try:
            while self._ready(worker):
                job = self._next(worker)
                if job is not None:
                    self._think(worker, job)
                else:
                    self._note_loss(WorkerLostError("the coprocessor's process died while idle"))
        except Exception as error:  # our own fault: plain caches are served all the same
            log.exception("the thinker failed")
            self._give_up(f"the thinker failed: {error}")
        if self._state != "absent":
            self._give_up("the server is stopping")

    def _ready(self, worker: Worker) -> bool:
        """Start the worker where it is not alive; false if there will be none."""
        started = False
        while not (self._closing or started or worker.alive):
            if self._in_a_row > self._restarts:
                self._give_up(f"{self._reason} ({self._in_a_row} times in a row)")
                return False
            self._state = "starting"
            try:
                worker.start()
                started = True  # one that died since is a loss, which `_next` notices
            except BrokenWorkerError as error:
                self._give_up(str(error))
                return False
            except WorkerLostError as error:
                self._note_loss(error)
        return not self._closing

    def _next(self, worker: Worker) -> _Job | None:
        """Wait for work; nothing when the worker died while it waited, or it is time to end."""
        with self._changed:
            while not self._closing and worker.alive:
                self._state = "ready"
                for queue in (self._urgent, self._others):
                    if queue:
                        self._now, self._state = queue.pop(next(iter(queue))), "busy"
                        return self._now
                if job := self._next_offered():
                    self._now, self._state = job, "busy"
                    return job
                self._changed.wait(LOOK)
        return None

    def _next_offered(self) -> _Job | None:
        """The next cache that nobody asks for, if the worker is well enough to try one."""
        # Half of the losses in a row that it may have are left to what somebody asks for.
        while self._offered and 2 * self._in_a_row < self._restarts:
            job = self._offered.popleft()
            if self._store.decide(job.cache_id):
                return job
        return None

    def _think(self, worker: Worker, job: _Job) -> None:
        failed = ""
        try:
            wanted = job.worthwhile is None or job.worthwhile(job.cache_id)
            if wanted and self._store.entry(job.cache_id).state != "augmented":
                self._store.mark(job.cache_id, "augmenting")
                with self._store.hold(job.cache_id):
                    worker.work(self._store, job.cache_id)
                self._in_a_row, self._reason = 0, ""
                self._augmented += 1
        except NoSuchCacheError:
            pass  # it was deleted meanwhile
        except WorkerLostError as error:
            failed = str(error)
            self._note_loss(error)
        except (DeliberateError, OSError) as error:
            failed = str(error)
            log.warning("no latents for cache %s: %s", job.cache_id, failed)
        if failed and not self._closing:
            self._failed += 1
            self._store.mark(job.cache_id, "failed", reason=failed)
        with self._changed:
            self._now = None
        self._settle(job)

    def _note_loss(self, error: WorkerLostError) -> None:
        if self._closing:
            return
        self._lost += 1
        self._in_a_row += 1
        self._reason = str(error)
        log.warning("%s", error)

    def _give_up(self, reason: str) -> None:
        """Be absent from now on, and tell all who wait."""
        with self._changed:
            self._state, self._reason = "absent", reason
            jobs = [] if self._now is None else [self._now]
            jobs += [*self._urgent.values(), *self._others.values()]
            self._now = None
            self._urgent.clear()
            self._others.clear()
        if not self._closing:
            log.error("no more latents: %s", reason)
        for job in jobs:
            self._settle(job)

    def _settle(self, job: _Job) -> None:
        """Tell who asked, and let a cache that is still waited for be plain again."""
        with suppress(StoreError):  # it is deleted, or the store is closed
            if self._store.entry(job.cache_id).state != "failed":
                self._store.mark(job.cache_id, "plain")
        _tell(job.cache_id, job.told)


def _tell(cache_id: str, told: list[OnDone]) -> None:
    for on_done in told:
        try:
            on_done(cache_id)
        except Exception:  # who asked has failed, and the others want to know all the same
            log.exception("told of cache %s in vain", cache_id)
