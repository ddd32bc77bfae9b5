"""One process at a time in a folder.

The system holds the lock for as long as the process lives, so a process that was killed leaves
none behind; the number in the file is only for the message.
"""

import errno
import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from deliberate.core.errors import DeliberateError
from deliberate.core.lock_file import NO_LOCKS, LockFile

NAME = ".lock"
_log = logging.getLogger(__name__)


class FolderInUseError(DeliberateError):
    """A folder that another process works in."""

    def __init__(self, folder: Path, holder: str) -> None:
        """Say which process it is."""
        self.holder = holder
        super().__init__(
            f"{str(folder)!r} is in use by process {holder}: wait for it or stop it, or name "
            "another folder"
        )


class FolderLock:
    """A folder's lock, held from here until `release`."""

    def __init__(self, folder: Path) -> None:
        """Take the lock, and make the folder if it is missing.

        A file system that has no locks lets everybody in, with a warning.

        Raises:
            OSError: the folder cannot be made or written.
            FolderInUseError: another process holds it, or this one already does.
        """
        self._file = LockFile(folder / NAME)
        self._made = not folder.exists()
        try:
            while not self._file.is_current():
                folder.mkdir(parents=True, exist_ok=True)
                with suppress(FileNotFoundError):  # the folder went with the one who had it
                    self._lock(self._file.open())
            self._sign()
        except OSError as error:
            # The reader knows nothing of the lock, but has to know of a link in its place.
            error.filename = str(self._file.path if error.errno == errno.ELOOP else folder)
            raise

    def __enter__(self) -> "FolderLock":
        """The lock itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Release it."""
        self.release()

    def release(self) -> None:
        """Let another process have the folder, and leave no trace."""
        if self._file.number >= 0:
            if self._file.is_current():  # where somebody emptied the folder, it may be another's
                self._file.path.unlink()
            self._file.close()
            if self._made:
                with suppress(OSError):  # something is in it
                    self._file.path.parent.rmdir()

    def _lock(self, file: int) -> None:
        folder = self._file.path.parent
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(file, 32, 0).decode(errors="replace").strip()
            self._file.close()
            raise FolderInUseError(folder, holder or "unknown") from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            _log.warning(
                "%r is on a file system without locks: see that no other process works in it",
                str(folder),
            )

    def _sign(self) -> None:
        """Write who holds it.

        Raises:
            OSError: the disk is full; it is released.
        """
        try:
            os.ftruncate(self._file.number, 0)
            os.pwrite(self._file.number, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            self.release()
            raise
