"""Sees that each file under a final name is whole, all the while a command is killed."""

import json
import os
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

GLANCE = 0.002
"""Seconds between two looks at a folder."""


@dataclass
class Tally:
    """What a loop came to."""

    kills: int = 0
    at_work: int = 0
    """Kills after the work had begun and before it was done."""
    runs: int = 0
    restarts: int = 0
    glances: int = 0
    differences: list[str] = field(default_factory=list)
    partial: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line of numbers."""
        return (
            f"{self.kills} kills ({self.at_work} at work), {self.restarts} restarts, "
            f"{self.runs} results compared, {len(self.differences)} differences, "
            f"{len(self.partial)} partial files in {self.glances:,} glances"
        )


def check_whole(path: Path) -> None:
    """See that a file under its final name is whole.

    Raises:
        ValueError: it is not.
    """
    content = path.read_bytes()
    match path.suffix:
        case ".st" | ".safetensors":
            [size] = struct.unpack("<Q", content[:8].ljust(8, b"\xff"))
            parts = json.loads(content[8 : 8 + size])
            ends = [part["data_offsets"][1] for name, part in parts.items() if name[0] != "_"]
            if 8 + size + max(ends, default=0) != len(content):
                raise ValueError(f"{len(content)} bytes and not {8 + size + max(ends)}")
        case ".json":
            json.loads(content)
        case ".jsonl":  # is added to: its last line alone may be short
            for line in content.split(b"\n")[:-1]:
                json.loads(line)
        case ".png" | ".html" | ".yaml":
            last = {".png": b"IEND\xaeB`\x82", ".html": b"</html>", ".yaml": b"\n"}[path.suffix]
            if not content.endswith(last):
                raise ValueError("does not end as it should")


class Watch:
    """Looks at a folder all the time, for files that are not whole under their final name."""

    def __init__(self, folder: Path, tally: Tally) -> None:
        self._folder, self._tally, self._seen = folder, tally, {}
        self._over = threading.Event()
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self) -> "Watch":
        self._looking = self._thread.submit(self._look_on)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.shutdown()
        self._looking.result()  # raises what ended it, or the loop would go on unwatched

    def _look_on(self) -> None:
        while not self._over.wait(GLANCE):
            self.look()

    def look(self) -> None:
        """One glance."""
        self._tally.glances += 1
        for name, state in snapshot(self._folder).items():
            if self._seen.get(name) == state:
                continue
            self._seen[name] = state
            try:
                check_whole(self._folder / name)
            except FileNotFoundError:  # replaced by a later one, or removed
                self._seen.pop(name)
            except (ValueError, KeyError, IndexError) as error:
                self._tally.partial.append(f"{name}: {error}")
        for step in self._folder.glob("checkpoints/step-*"):
            try:
                names = {path.name for path in step.iterdir()}
            except FileNotFoundError:  # an old one, removed
                continue
            if len(names) < 3 and step.exists():
                self._tally.partial.append(f"{step.name} with {sorted(names)} alone")


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Each file under a final name; a hidden one, or one in a hidden folder, has none yet."""
    found = {}
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                path = Path(where, name)
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                state = status.st_ino, status.st_size, status.st_mtime_ns
                found[str(path.relative_to(folder))] = state
    return found
