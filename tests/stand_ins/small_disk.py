"""A small file system in memory, mounted for one test: it can be full, and it can be read-only."""

import os
import shutil
import subprocess
from pathlib import Path

FILLER = "filler"


class NotMountedError(Exception):
    """This machine lets nobody mount, or not this user."""


class SmallDisk:
    """A folder with so many bytes of room."""

    def __init__(self, path: Path, *, size: int) -> None:
        if os.geteuid():
            raise NotMountedError("only root mounts a disk")
        self.path = path
        path.mkdir()
        try:
            self._mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs")
        except subprocess.CalledProcessError as error:
            raise NotMountedError("this machine does not let root mount") from error

    def resize(self, size: int) -> None:
        """Give it more room, and keep what is on it."""
        self._mount("-o", f"remount,size={size}")

    def read_only(self, *, on: bool = True) -> None:
        """Let nobody write."""
        self._mount("-o", f"remount,{'ro' if on else 'rw'}")

    def fill(self) -> None:
        """Take all room that there is."""
        with (self.path / FILLER).open("wb", buffering=0) as file:
            while shutil.disk_usage(self.path).free:
                file.write(bytes(4096))

    def empty(self) -> None:
        """Give back what `fill` took."""
        (self.path / FILLER).unlink()

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Each file with its time of change and its bytes, hidden ones too, but for the filler."""
        return {
            str(path.relative_to(self.path)): (path.stat().st_mtime_ns, path.read_bytes())
            for path in sorted(self.path.rglob("*"))
            if path.is_file() and path.name != FILLER
        }

    def close(self) -> None:
        """Be gone, also where something on it is still open."""
        subprocess.run(["umount", "--lazy", str(self.path)], check=True)

    def _mount(self, *options: str) -> None:
        command = ["mount", *options, str(self.path)]
        subprocess.run(command, check=True, capture_output=True)
