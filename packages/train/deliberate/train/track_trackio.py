"""trackio: a run's numbers in trackio's database on this machine.

    RUN/trackio.json (which run it is) + step --> SQLiteStorage --> `trackio show`

The storage is used by itself: `trackio.init` would ask the Hub who its user is, send the numbers to
a Space if one is named in the environment, print on stdout, and sample the machine.
"""

import json
import sqlite3
import time
import uuid
from pathlib import Path

from trackio.sqlite_storage import SQLiteStorage

from deliberate.core import plain_json
from deliberate.core.atomic import write_bytes

IDENTITY = "trackio.json"
"""File in a run's folder that says which of trackio's runs it is."""

PATIENCE = 1.0
"""Seconds between writes, each of which takes tens of milliseconds (`docs/log.md`, 2026-11-25)."""


class Trackio:
    """Writes rows of trackio's database."""

    def __init__(self, folder: Path, *, project: str) -> None:
        """Go on with trackio's run of this folder, or begin one.

        Args:
            folder: The run's; its path when it began is the run's name.
            project: Trackio's project.

        Raises:
            OSError: the folder cannot be written, or says nothing of its run.
        """
        self._project, path = project, folder / IDENTITY
        if not path.exists():
            identity = {"run": str(folder), "id": uuid.uuid4().hex}
            write_bytes(path, (json.dumps(identity) + "\n").encode())
        try:
            identity = plain_json.read(path)
            self._name, self._id = identity["run"], identity["id"]
        except (ValueError, KeyError, TypeError) as error:
            raise OSError(
                f"{str(path)!r} does not say which of trackio's runs this is: remove it to begin "
                "another one"
            ) from error

        self._waiting: dict[int, dict[str, float]] = {}
        self._written = time.monotonic()

    def log(self, step: int, numbers: dict[str, float]) -> None:
        """Add a step's row, at the latest when this is called a second later.

        Raises:
            OSError: the database cannot be written.
        """
        self._waiting[step] = numbers
        if time.monotonic() - self._written >= PATIENCE:
            self._write()

    def close(self) -> None:
        """Write what is not written yet.

        Raises:
            OSError: the database cannot be written.
        """
        self._write()

    def _write(self) -> None:
        """Add the rows that wait, but none that is there: a step done again has the same numbers.

        Raises:
            OSError: the database cannot be written.
        """
        waiting, self._waiting = self._waiting, {}
        try:
            SQLiteStorage.bulk_log(
                self._project,
                self._name,
                list(waiting.values()),
                steps=list(waiting),
                log_ids=[f"{self._id}-{step}" for step in waiting],
                run_id=self._id,
            )
        except (sqlite3.Error, OSError) as error:
            path = SQLiteStorage.get_project_db_path(self._project)
            raise OSError(
                f"trackio cannot write {str(path)!r}: {error}; repair that, set TRACKIO_DIR to a "
                "folder that can be written, or resume without --tracker trackio"
            ) from error
        self._written = time.monotonic()
