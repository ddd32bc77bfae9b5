"""One process at a time in a folder.

The system holds the lock for as long as the process lives, so a process that was killed leaves
none behind; the number in the file is only for the message.
"""

import fcntl
import os
from pathlib import Path

from deliberate.serve.store_errors import StoreError, StoreInUseError

NAME = ".lock"


class FolderLock:
    """A folder's lock, held from here until `release`."""

    def __init__(self, folder: Path) -> None:
        """Take the lock, and make the folder if it is missing.

        Raises:
            StoreError: the folder cannot be made or written.
            StoreInUseError: another process holds it, or this one already does.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(
                f"the store {str(folder)!r} cannot be written: {error.strerror}; name "
                "another folder"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._file, 32, 0).decode(errors="replace").strip()
            os.close(self._file)
            raise StoreInUseError(
                f"the store {str(folder)!r} is in use by process {holder or 'unknown'}: stop that "
                "server, or name another folder"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another process have the folder."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
