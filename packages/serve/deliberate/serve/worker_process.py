"""The coprocessor in a process of its own: nothing that happens to it reaches the server.

    work --paths--> process (worker_main.py) --file--> Store.adopt
    time limit --> killed

Its priority is lower, and its device may be another.
"""

import multiprocessing
import signal
import threading
from multiprocessing.connection import Connection, wait

from deliberate.serve.store import Store
from deliberate.serve.worker import BrokenWorkerError, ThoughtError, Worker, WorkerLostError
from deliberate.serve.worker_main import Models, main


class ProcessWorker(Worker):
    """A process that is started anew after it was lost."""

    def __init__(self, models: Models, *, limit: float, start_limit: float = 600.0) -> None:
        """Start nothing yet.

        Args:
            models: What the process loads.
            limit: Seconds that it may take for one cache.
            start_limit: Seconds that it may take to load.
        """
        self._models, self._limit, self._start_limit = models, limit, start_limit
        self._context = multiprocessing.get_context("spawn")
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None
        self._lock, self._stopped = threading.Lock(), False

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.is_alive()

    @property
    def pid(self) -> int | None:
        """The process's id."""
        return self._process.pid if self._process is not None else None

    def start(self) -> None:
        """Start the process, and wait until its models are loaded.

        Raises:
            BrokenWorkerError: the models cannot be loaded.
            WorkerLostError: it died or did not load in time.
        """
        self._end()
        with self._lock:
            if self._stopped:
                raise WorkerLostError("the coprocessor's process was stopped")
            ours, theirs = self._context.Pipe()
            self._process = self._context.Process(
                target=main, args=(theirs, self._models), name="coprocessor", daemon=True
            )
            self._process.start()
            theirs.close()  # so that its death is an end of file here
            self._connection = ours
        failed = self._received(self._start_limit, "load")
        if failed:
            raise BrokenWorkerError(failed)

    def work(self, store: Store, cache_id: str) -> None:
        """Have the process write an augmented file, and let the store take it over.

        Raises:
            ThoughtError: the coprocessor could not.
            WorkerLostError: the process died, or was killed because it took too long.
        """
        source, target = store.path(cache_id), store.work_path(cache_id)
        assert self._connection is not None
        try:
            try:
                self._connection.send((str(source), str(target)))
            except OSError as error:
                raise WorkerLostError(self._death()) from error
            failed = self._received(self._limit, "answer")
            if failed:
                raise ThoughtError(failed)
            store.adopt(cache_id, target)
        finally:
            for left in target.parent.glob(f"*{target.name}*"):  # of a process that was killed
                left.unlink(missing_ok=True)

    def stop(self) -> None:
        """Kill the process, if it runs; it is not started again."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()
                self._process.join()

    def _received(self, limit: float, verb: str) -> str:
        """What the process says within the limit; otherwise it is killed.

        Raises:
            WorkerLostError: it said nothing in time, or died.
        """
        assert self._process is not None
        assert self._connection is not None
        ready = wait([self._connection, self._process.sentinel], limit)
        if self._connection in ready:
            try:
                return self._connection.recv()
            except (EOFError, OSError) as error:
                raise WorkerLostError(self._death()) from error
        if ready:
            raise WorkerLostError(self._death())
        self._end()
        raise WorkerLostError(f"the coprocessor did not {verb} within {limit:g} s and was killed")

    def _death(self) -> str:
        assert self._process is not None
        self._process.join(5)  # the end of its pipe may be seen before its own
        code = self._process.exitcode
        if code is None or code >= 0:
            return f"the coprocessor's process ended with code {code}"
        return f"the coprocessor's process was killed by {signal.Signals(-code).name}"

    def _end(self) -> None:
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.join()
                self._process.close()
                self._process = None
            if self._connection is not None:
                self._connection.close()
                self._connection = None
