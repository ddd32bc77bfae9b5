"""Ratios between ways of doing one thing, measured in turn, and the line that reports them."""

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from deliberate.eval import clock


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A measured ratio and what it has to be."""

    value: float
    target: float
    at_least: bool
    """Whether the target is a lower bound; otherwise an upper one."""

    @property
    def holds(self) -> bool:
        """Whether the target is reached."""
        return self.value >= self.target if self.at_least else self.value <= self.target


def in_turn(
    runs: dict[str, Callable[[], object]],
    *,
    repeats: int,
    device: torch.device | None = None,
    before: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Median seconds of each run; they take turns, so that a busy spell meets them all.

    Args:
        runs: What to time, by name.
        repeats: Timed turns, after one that is not timed.
        device: As in `clock.in_turn`.
        before: Run before each of them, and not timed.
    """
    seconds = clock.in_turn(runs, repeats=repeats, device=device, before=before)
    return {name: statistics.median(each) for name, each in seconds.items()}


def report(name: str, ratios: dict[str, Ratio]) -> None:
    """Print the last line of a benchmark: one JSON object."""
    found = {
        key: {"ratio": round(ratio.value, 4), "target": ratio.target, "holds": ratio.holds}
        for key, ratio in ratios.items()
    }
    if len(found) == 1:
        [line] = found.values()
    else:
        line = {"ratios": found, "holds": all(ratio.holds for ratio in ratios.values())}
    print(json.dumps({"name": name, **line}))
