"""How long things take, in turn, so that what else a machine does meets them all alike.

runs by name --a turn untimed, then timed turns--> seconds, a turn each --> median, low, high
"""

import statistics
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A number that was measured several times."""

    median: float
    low: float
    """The least."""

    high: float
    """The most."""


def spread(found: Sequence[float]) -> Spread:
    """Median, least and most of at least one number."""
    return Spread(median=statistics.median(found), low=min(found), high=max(found))


def in_turn(
    runs: Mapping[Name, Callable[[], object]],
    *,
    repeats: int,
    device: torch.device | None = None,
    before: Callable[[], object] = lambda: None,
    on_runs: Callable[[int, int], None] = lambda done, total: None,
) -> dict[Name, list[float]]:
    """Seconds of each run, turn by turn: one turn that warms up, then those that are timed.

    Args:
        runs: What to time, by name.
        repeats: Timed turns.
        device: Whose work is waited for, where it goes on by itself; none is the current one of
            CUDA, if the process uses it.
        before: Run before each of them, and not timed.
        on_runs: Told of the runs done and to do.
    """
    wait = _waiting(device)
    seconds: dict[Name, list[float]] = {name: [] for name in runs}
    done, total = 0, (repeats + 1) * len(runs)
    for turn in range(repeats + 1):
        for name, run in runs.items():
            before()
            wait()
            start = time.perf_counter()
            run()
            wait()
            if turn:
                seconds[name].append(time.perf_counter() - start)
            done += 1
            on_runs(done, total)
    return seconds


def _waiting(device: torch.device | None) -> Callable[[], object]:
    """Waits for all that was started on a device."""
    if device is None:
        return torch.cuda.synchronize if torch.cuda.is_initialized() else lambda: None
    if device.type == "cpu":
        return lambda: None
    return partial(torch.accelerator.synchronize, device)
