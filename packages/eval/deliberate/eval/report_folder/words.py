"""What runs and conditions are called in a report, and which style each is drawn in.

a report's dict --> condition -> words; condition -> style
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deliberate.core.verdict import columns

FIXED = {
    name: number
    for number, name in enumerate((
        "latents", "base", "cot", "shuffled", "shuffled_but_last", "random", "zero", "reversed",
        "soft", "pause", "cot:latency",
    ))
}  # fmt: skip
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
    """A style for each condition, by its name: the same whatever else a plot shows."""
    found = {name: FIXED[name] for name in names if name in FIXED}
    others = [name for name in names if name not in FIXED]
    # Latents read again and chains of thought take turns, so that neither moves the other.
    for turn, some in enumerate((
        [name for name in others if name.startswith("every:")],
        [name for name in others if not name.startswith("every:")],
    )):
        found |= {name: len(FIXED) + turn + 2 * number for number, name in enumerate(some)}
    return found


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


def shown(text: str) -> str:
    """A token's text with its line ends and the spaces at its ends to be seen."""
    text = text.replace("\n", "↵").replace("\t", "⇥")
    bare = text.strip(" ")
    before = len(text) - len(text.lstrip(" "))
    return f"{'·' * before}{bare}{'·' * (len(text) - before - len(bare))}" or "∅"
