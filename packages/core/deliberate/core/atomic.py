"""Writing so that a file or a folder under its final name is always whole."""

import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Give a temporary path beside `path`; when the block ends well, it becomes `path`.

    The file is flushed to disk before it is renamed, and removed if the block fails.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file, or leave what was there."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


@contextmanager
def replacing_folder(path: Path) -> Generator[Path]:
    """Give an empty folder beside `path`; when the block ends well, it becomes `path`.

    No folder can be renamed over another, so the one before steps aside for a moment. A process
    that is killed in that moment leaves it to `bring_back`.
    """
    bring_back(path)
    partial, aside = path.with_name(f".{path.name}.part"), _aside(path)
    shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            path.rename(aside)
        partial.rename(path)
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
