"""What the tables of `docs/results.md` share: what there is to show, and what it cost.

docs/results/NAME.json --> Page --> results, costs beside every row, lines of plots
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments import COST, Experiments, Table
from measured import Measured

from deliberate.eval.report_folder.blocks import Cell, Line
from deliberate.eval.report_folder.numbers import NONE, count, flops, known, plain, seconds

MISSING = "not measured yet"
PICTURES = "results"
"""Folder of the plots, beside the page."""

COSTS = [
    "Steps",
    "Trained weights",
    "Training FLOPs",
    "CPU hours",
    "Extra FLOPs an answer",
    "Delay of the first token",
]
"""What stands beside every row."""

Results = Sequence[tuple[str, Mapping[str, Any] | None]]
"""By run; none where it is not measured."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """What there is to show."""

    experiments: Experiments
    base: str
    """The base's fingerprint."""

    kept: Mapping[str, Measured]
    """By run."""

    def result(self, run: str, measure: str) -> Mapping[str, Any] | None:
        """What a measure came to, if it was made with the arguments that it has now."""
        key = self.experiments.measured_key(measure, self.base)
        kept = self.kept[run]
        return kept.measures[measure]["result"] if kept.has(measure, key) else None

    def of(self, table: Table) -> Results:
        """What a table shows."""
        return [(run, self.result(run, table.measure)) for run in table.runs]

    def costs(self, run: str) -> list[Cell]:
        """What a run took, and what it takes to use it: a cell for each of `COSTS`."""
        training, decoding = self.kept[run].training, self._decoding(run)
        spent = training.get("cpu_seconds")
        extra = decoding.get("extra_seconds")
        return [
            Cell(text=count(training.get("steps"))),
            Cell(text=count(training.get("parameters"))),
            Cell(text=flops(training.get("flops"))),
            Cell(text=plain(spent / 3600) if known(spent) else NONE),
            Cell(text=flops(decoding.get("extra_flops"))),
            seconds(extra) if extra else Cell(text=NONE),
        ]

    def memory(self, run: str) -> int | None:
        """Bytes at the most while answering, weights included."""
        return self._decoding(run).get("peak_bytes")

    def _decoding(self, run: str) -> Mapping[str, Any]:
        found = None
        if COST in self.experiments.measures and run in self.experiments.runs:
            found = self.result(run, COST)
        rows = (found or {}).get("rows", [])
        return next((row for row in rows if row["name"] == "latents"), {})


def line_of(label: str, found: Sequence[tuple[int, Mapping[str, Any]]], *, style: int) -> Line:
    """A line of values with their intervals.

    Args:
        label: What it is.
        found: Places on the first axis, and `value`, `low` and `high` there.
        style: How it looks.
    """
    return Line(
        label=label,
        x=[x for x, _ in found],
        y=[y["value"] for _, y in found],
        low=[y["low"] for _, y in found],
        high=[y["high"] for _, y in found],
        style=style,
    )


def document(task: str, there: Results) -> dict[str, Any]:
    """Results of some runs as the report's own sections take them."""
    runs = [{"name": run} for run, _ in there]
    return {"runs": runs, "tasks": {task: {"result": [found for _, found in there]}}}
