"""The files that a store wrote: in order of use, within a budget of bytes.

    least recently used ... most recently used
    ^ goes first            ^ what was just written or served

The order outlives the process in the files' times of change. Within a process it is kept by
itself, so a clock that is set back does not disturb it: a time that is written is always later
than the one before.
"""

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from deliberate.serve.source import Identity
from deliberate.serve.store_errors import OverBudgetError


class OwnFiles:
    """Which files, how large, in what order they were last used."""

    def __init__(self, budget: int) -> None:
        """Begin with no file.

        Args:
            budget: Most bytes that all of them take.
        """
        self.budget = budget
        self.used = 0
        self._sizes: OrderedDict[Path, int] = OrderedDict()
        self._latest = 0

    def __contains__(self, path: Path) -> bool:
        """Whether the store wrote that file."""
        return path in self._sizes

    def paths(self) -> list[Path]:
        """All files, the least recently used first."""
        return list(self._sizes)

    def size(self, path: Path) -> int:
        """Bytes of a file; 0 if the store did not write it."""
        return self._sizes.get(path, 0)

    def found(self, path: Path, *, size: int, changed: int) -> None:
        """Take over a file of an earlier process; give them oldest first.

        Args:
            path: The file.
            size: In bytes.
            changed: Its time of change, in nanoseconds.
        """
        self._latest = max(self._latest, changed)
        self.add(path, size)

    def add(self, path: Path, size: int) -> None:
        """Note a file just written, as the last used."""
        self.used += size - self._sizes.pop(path, 0)
        self._sizes[path] = size

    def forget(self, path: Path) -> None:
        """Note that a file is gone."""
        self.used -= self._sizes.pop(path, 0)

    def now(self) -> int:
        """The time in nanoseconds, later than any before."""
        self._latest = max(time.time_ns(), self._latest + 1)
        return self._latest

    def touch(self, path: Path, now: int) -> Identity:
        """Make a file the last used, here and for the next process.

        Args:
            path: The file.
            now: The time that it gets.

        Returns:
            What the file is now.

        Raises:
            OSError: the file is gone, or is not ours to touch.
        """
        self._sizes.move_to_end(path)
        with path.open("rb") as opened:  # the times and the status are of one file, by its number
            os.utime(opened.fileno(), ns=(now, now))
            return Identity.of(os.fstat(opened.fileno()))

    def victims(
        self, size: int, *, in_use: Callable[[Path], bool], replaced: int = 0
    ) -> list[Path]:
        """The files that must go to make room, least recently used first.

        Args:
            size: Bytes that are to be added.
            in_use: Whether a file must stay.
            replaced: Bytes of the file whose place is taken.

        Raises:
            OverBudgetError: what must stay leaves no room.
        """
        excess = self.used + size - replaced - self.budget
        chosen = []
        for path, held in self._sizes.items():
            if excess <= 0:
                break
            if not in_use(path):
                chosen.append(path)
                excess -= held
        if excess > 0:
            stay = self.used - replaced - sum(self._sizes[path] for path in chosen)
            used, later = (
                (f", of which {stay} are of caches in use", ", or try again later")
                if stay
                else ("", "")
            )
            raise OverBudgetError(
                f"a cache of {size} bytes does not fit into the store's {self.budget} bytes"
                f"{used}: give it more (--disk-budget){later}"
            )
        return chosen
