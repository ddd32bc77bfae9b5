"""Workers that fill one folder without being told of one another.

    folder/.claims: [which work it is][a byte a batch: 1 once it is done]
                    a batch's byte is locked by whoever makes it

The system holds a process's locks for as long as it lives. So a worker that was killed leaves no
claim behind, whatever host it was on, and nobody has to guess whether it still lives.
"""

import fcntl
import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Literal

from deliberate.core.lock_file import NO_LOCKS, LockFile

NAME = ".claims"
_HEAD = hashlib.sha256().digest_size

Claim = Literal["mine", "done", "held"]
"""`mine`: to be made here and now; `done`: it is made; `held`: another worker makes it."""


class Claims:
    """The batches that a folder's workers have taken; gone once the last of them has left."""

    def __init__(self, folder: Path, work: bytes) -> None:
        """Join the folder's workers, or begin.

        Args:
            folder: Made if it is missing.
            work: Tells this work, and how it is divided into batches, from others.

        Raises:
            OSError: workers with other work are there, or the file system has no locks.
        """
        from deliberate.core.atomic import check_writable

        check_writable(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._file, digest = LockFile(folder / NAME), hashlib.sha256(work).digest()
        while not self._file.is_current():
            self._file.open()
            if self._lock(0, fcntl.LOCK_EX | fcntl.LOCK_NB):  # alone: what is in it is of the dead
                self._begin(digest)
            self._lock(0, fcntl.LOCK_SH)
        if os.pread(self._file.number, _HEAD, 0) != digest:
            self._file.close()
            raise OSError(
                f"workers with other texts, models or options fill {str(folder)!r}: give all of "
                "them the same ones, --batch too, or name another folder with -o"
            )

    def __enter__(self) -> "Claims":
        """The claims themselves."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave; the last one removes the file."""
        if self._lock(0, fcntl.LOCK_EX | fcntl.LOCK_NB):
            self._file.path.unlink(missing_ok=True)
        self._file.close()

    def take(self, number: int, *, wait: bool = False) -> Claim:
        """Take a batch, unless it is done or another worker makes it.

        Args:
            number: Of the batch, from 0.
            wait: Wait for that other worker, to finish it or to die.
        """
        if self._is_done(number):
            return "done"
        if not self._lock(_HEAD + number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB)):
            return "held"
        if self._is_done(number):
            self._lock(_HEAD + number, fcntl.LOCK_UN)
            return "done"
        return "mine"

    def finish(self, number: int) -> None:
        """Tell the others that a batch is done."""
        self._write(b"\x01", _HEAD + number)
        self._lock(_HEAD + number, fcntl.LOCK_UN)

    def _begin(self, digest: bytes) -> None:
        """Write which work it is, or leave no trace.

        Raises:
            OSError: the disk is full.
        """
        os.ftruncate(self._file.number, 0)
        try:
            self._write(digest, 0)
        except OSError:
            self._file.path.unlink(missing_ok=True)
            self._file.close()
            raise

    def _write(self, content: bytes, place: int) -> None:
        try:
            os.pwrite(self._file.number, content, place)
        except OSError as error:  # the reader knows the folder and nothing of this file
            raise OSError(error.errno, error.strerror, str(self._file.path.parent)) from error

    def _is_done(self, number: int) -> bool:
        return os.pread(self._file.number, 1, _HEAD + number) == b"\x01"

    def _lock(self, place: int, how: int) -> bool:
        """Lock a byte; whether it could be.

        Raises:
            OSError: the file system has no locks.
        """
        try:
            fcntl.lockf(self._file.number, how, 1, place)
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            folder = str(self._file.path.parent)
            raise OSError(
                f"{folder!r} is on a file system without locks, by which workers tell who makes "
                "what: give each its share with --shard, a single one 1/1"
            ) from error
        return True
