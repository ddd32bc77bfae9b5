"""Where a run's numbers are shown while it goes on, besides its metrics.

    step, {"loss": …, "change_percent/1": …} --> Trackers --> each --tracker

A tracker is no part of the recipe: a run may be resumed with another one, or without.
"""

import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from deliberate.core.errors import DeliberateError

PROJECT = "deliberate"
"""Trackio's project for all runs."""


@runtime_checkable
class Tracker(Protocol):
    """Takes a run's numbers."""

    def log(self, step: int, numbers: dict[str, float]) -> None:
        """Take the numbers of a step, which comes once, or once more after a crash.

        Raises:
            OSError: they cannot be written.
        """

    def close(self) -> None:
        """Write what is not written yet.

        Raises:
            OSError: it cannot be written.
        """


def _tensorboard(folder: Path, step: int) -> Tracker:
    from deliberate.train.track_tensorboard import TensorBoard

    return TensorBoard(folder / "tensorboard", step=step)


def _trackio(folder: Path, step: int) -> Tracker:
    from deliberate.train.track_trackio import Trackio

    return Trackio(folder, project=PROJECT)


TRACKERS: dict[str, Callable[[Path, int], Tracker]] = {
    "tensorboard": _tensorboard,
    "trackio": _trackio,
}
"""By the name of the package that each one needs: made of the run's folder and the steps done."""


PACKAGES = {"tensorboard": "tensorboard>=2.21", "trackio": "trackio>=0.43,<0.44"}
"""What each of them needs, as the extras of the same names have it."""


def check_trackers(names: Sequence[str]) -> None:
    """See that these trackers can be used, before anything is loaded.

    Raises:
        ValueError: there is no such tracker.
        DeliberateError: its package is not installed; says how to install it.
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(f"tracker must be one of {', '.join(TRACKERS)}, got {name!r}")
        if find_spec(name) is None:
            raise DeliberateError(
                f"tracker {name!r} is not installed: `pip install '{PACKAGES[name]}'`, or train "
                "without it; "
                "metrics.jsonl is written always"
            )


def how_to_show(name: str, folder: Path) -> str:
    """The command that shows what a tracker was told."""
    if name == "trackio":
        return f"trackio show --project {PROJECT}"
    return f"tensorboard --logdir {shlex.quote(str(folder / name))}"


class Trackers:
    """All trackers of a run, of which only the first process opens any."""

    def __init__(self, names: Sequence[str]) -> None:
        """Choose them by name, and open none yet."""
        self._names = list(dict.fromkeys(names))
        self._open: list[Tracker] = []

    def open(self, folder: Path, *, step: int) -> None:
        """Open them, for a run that has done `step` steps."""
        self._open = [TRACKERS[name](folder, step) for name in self._names]

    def log(self, step: int, numbers: dict[str, Any]) -> None:
        """Tell them a step's numbers; those that are a dictionary become one for each key."""
        if not self._open:
            return
        flat: dict[str, float] = {}
        for name, value in numbers.items():
            if isinstance(value, dict):
                flat |= {f"{name}/{key}": each for key, each in value.items()}
            else:
                flat[name] = value
        for tracker in self._open:
            tracker.log(step, flat)

    def close(self) -> None:
        """Close them, each whether or not another fails."""
        with ExitStack() as stack:
            for tracker in self._open:
                stack.callback(tracker.close)
