"""Writing so that a file or a folder under its final name is always whole."""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

_PART = ".part"
"""What hidden folders of half-written files end with."""


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Give a temporary path beside `path`; when the block ends well, it becomes `path`.

    The file is flushed to disk before it is renamed, and removed if the block fails. What a
    process that was killed has left half-written goes with the next writing of the same file.

    Raises:
        OSError: it cannot be written; `path` is as it was.
    """
    try:
        with _partial(path) as folder, system_errors():
            temporary = folder / path.name
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    except OSError as error:
        hidden = error.filename is None or _PART in str(error.filename)
        if error.errno is not None and hidden:  # the reader knows the file by its own name
            error.filename = str(path)
        raise


def is_partial(name: str) -> bool:
    """Whether a file or folder is what a process that was killed left half-written."""
    return name.startswith(".") and name.endswith(_PART)


@contextmanager
def system_errors() -> Generator[None]:
    """Turn what writing safetensors raises into the system's own error, with its number.

    Raises:
        OSError: the disk is full or a file cannot be written.
    """
    try:
        yield
    except SafetensorError as error:
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
        raise OSError(str(error)) from error


@contextmanager
def _partial(path: Path) -> Generator[Path]:
    """An empty hidden folder beside `path`, for this process alone.

    A folder and no file, since what writes safetensors has a temporary file of its own, which
    would be left beside `path` by a process that is killed.
    """
    partial = path.with_name(f".{path.name}{_PART}")
    handle = _taken(partial)
    if handle is None:
        partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PART))
    try:
        for left in partial.iterdir():  # by a process that was killed
            left.unlink()
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _taken(folder: Path) -> int | None:
    """Make a folder and lock it, until the handle is closed; None where another process has it."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:  # removed since by the one who had it
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), folder.stat()):
                return handle
        except FileNotFoundError:
            pass
        except OSError:  # held, or the file system has no such locks
            os.close(handle)
            return None
        os.close(handle)


def check_writable(folder: Path) -> None:
    """See that a folder can be written, or can be made, before hours are spent on what goes there.

    Raises:
        OSError: it cannot; names it, or the folder in which it would be made.
    """
    while not folder.exists() and folder.parent != folder:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file, or leave what was there."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing_folder(path: Path) -> Generator[Path]:
    """Give an empty folder beside `path`; when the block ends well, it becomes `path`.

    No folder can be renamed over another, so the one before steps aside for a moment. A process
    that is killed in that moment leaves it to `bring_back`.

    Raises:
        OSError: it cannot be written; `path` is as it was.
    """
    bring_back(path)
    partial, aside = path.with_name(f".{path.name}.part"), _aside(path)
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    try:
        partial.mkdir()
        yield partial
        if path.exists():
            path.rename(aside)
        partial.rename(path)
    except OSError as error:
        written = error.filename2 or error.filename  # the second one is where a copy goes
        if error.errno is None or (written is not None and _PART not in str(written)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:  # gone already if all went well
        bring_back(path)
        shutil.rmtree(partial, ignore_errors=True)


def bring_back(path: Path) -> None:
    """Bring back a folder that stepped aside for one that never came."""
    aside = _aside(path)
    if not path.exists() and aside.exists():
        aside.rename(path)
    shutil.rmtree(aside, ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.before")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
