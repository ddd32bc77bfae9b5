"""A file that processes lock, and that the last of them removes.

Whoever comes opens it by its name, and by then it may have been removed: then there is another one
under that name, or soon will be.
"""

import errno
import os
from pathlib import Path

NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
"""What the system says where a file system has no locks."""


# No link: what it leads to would be emptied.
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class LockFile:
    """One such file, as a process has it."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet."""
        self.path, self.number = path, -1

    def open(self) -> int:
        """Open it anew, and make it if it is missing; the file's number.

        Raises:
            OSError: it cannot be made or opened, or is a link.
        """
        self.close()
        self.number = os.open(self.path, _FLAGS, 0o666)
        return self.number

    def is_current(self) -> bool:
        """Whether it is open, and is the one that newcomers find."""
        try:
            return self.number >= 0 and os.path.samestat(os.fstat(self.number), self.path.lstat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Let it go, and its locks with it."""
        if self.number >= 0:
            os.close(self.number)
            self.number = -1
