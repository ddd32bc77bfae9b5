"""What runs and conditions are called in a report, and which style each is drawn in.

a report's dict --> condition -> words; condition -> style
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deliberate.core.verdict import columns

FIXED = {"latents": 0, "base": 1}
"""Styles that mean the same on every plot."""


def conditions(report: Mapping[str, Any], *, other: str = "text") -> dict[str, str]:
    """The conditions of a perplexity report, but for the base, in the order of tables."""
    return columns(dict(report), other=other)


def asked(report: Mapping[str, Any]) -> dict[str, str]:
    """The conditions that problems were answered under, the base first."""
    total = report["total"]
    present = [name for name in total["percent"] if name != "base"]
    named = columns(
        {**report, "change_percent": dict.fromkeys(present)},  # only its keys are looked at
        other="question",
    )
    more = {name: _unnamed(name) for name in present if name not in named}
    return {"base": "base alone", **named, **more}


def _unnamed(name: str) -> str:
    """Words of a condition that is made of a name and a number."""
    what, _, number = name.partition(":")
    if what == "cot":
        return f"chain of thought{f', {number} tokens' if number else ''}"
    if what == "every" and number:
        return f"latents again every {number} tokens"
    return name.replace("_", " ")


def styles(names: Sequence[str]) -> dict[str, int]:
    """A style for each condition: latents and base always the same."""
    free = iter(range(len(FIXED), len(FIXED) + len(names)))
    return {name: FIXED[name] if name in FIXED else next(free) for name in names}


def runs_of(results: Mapping[str, Any], task: str) -> list[tuple[str, Mapping[str, Any]]]:
    """A task's results that come one a run, with the runs' names."""
    result = results["tasks"].get(task, {}).get("result") or []
    named = [str(run["name"]) for run in results["runs"]]
    return [(name, each) for name, each in zip(named, result, strict=False) if each]


def run_styles(names: Sequence[str]) -> dict[str, int]:
    """A style for each run where several are on one plot; the base keeps its own."""
    return {name: number + (number > 0) for number, name in enumerate(names)}


def titled(run: str, text: str) -> str:
    """A caption: with the run's name if there are several, else as a sentence begins."""
    return f"{run}: {text}" if run else f"{text[0].upper()}{text[1:]}"
