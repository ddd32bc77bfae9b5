"""Files that cannot be served: told once, and moved away only where the store wrote them.

    file --own--> set-aside/file
         --another's--> left where it is

A file that the store did not write may be half-way through being copied, or be served by another
server with its own base: only its owner knows.
"""

import logging
from collections import deque
from pathlib import Path

from deliberate.serve.address import is_own_name
from deliberate.serve.entry import Report

FOLDER = "set-aside"
_MOST = 1000

log = logging.getLogger(__name__)


class Rejects:
    """What was found unfit in a store's folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.reports: deque[Report] = deque(maxlen=_MOST)

    @property
    def aside(self) -> int:
        """Files that are set aside."""
        try:
            return sum(1 for _ in (self._folder / FOLDER).iterdir())
        except OSError:  # none ever was, or someone took the folder away
            return 0

    def report(self, path: Path, reason: str, *, aside: Path | None = None) -> None:
        """Note and log a file that is not served."""
        self.reports.append(Report(path=path, reason=reason, aside=aside))
        where = f"; moved to {str(aside)!r}" if aside else ""
        log.warning("not served: %s%s", reason, where)

    def damaged(self, path: Path, reason: str) -> None:
        """Report a damaged file, and set it aside if the store wrote it."""
        self.report(path, reason, aside=self._moved(path) if is_own_name(path) else None)

    def _moved(self, path: Path) -> Path | None:
        target = self._folder / FOLDER / path.name
        number = 1
        while target.exists():
            target = target.with_name(f"{path.stem}.{number}{path.suffix}")
            number += 1
        try:
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
        except OSError as error:  # it stays, and is not served from there either
            log.warning("cannot set %r aside: %s", str(path), error)
            return None
        return target
