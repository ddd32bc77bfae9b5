"""Files that somebody else may have made: regular ones alone, and no more of them than was said.

path --opened--> a regular file      path --read--> its bytes, at most so many
"""

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path


@contextmanager
def opened(path: Path) -> Generator[BufferedReader]:
    """Open a regular file for reading; a pipe or a device may never end, or never begin.

    Raises:
        IsADirectoryError: it is a folder.
        OSError: it cannot be opened, or is something else.
    """
    # Without waiting, or a pipe that nobody writes to would hold us for ever.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    mode = os.fstat(handle).st_mode
    if stat.S_ISDIR(mode):
        os.close(handle)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        yield file


def read(path: Path, *, most: int) -> bytes:
    """The bytes of a regular file.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger.
    """
    with opened(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"larger than {most:,} bytes", str(path))
    return content
