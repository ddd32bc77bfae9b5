"""What a report of `deliberate eval` comes to in words: its columns and its verdict.

The command's table and the model card both say it with these.
"""

from collections.abc import Sequence
from typing import Any

from deliberate.core.kinds import KINDS

FEWEST_UNITS = 10
"""Below this many resampled texts an interval is too narrow to be believed."""

LARGEST_PERCENT = 1000
"""A change above this, or whose interval goes above it, is shown as a factor."""

NEARLY_NONE = 2.0
"""Percent of problems solved below which a difference says little."""

CONDITIONS = {
    "latents": "latents",
    "shuffled": "another {other}'s latents",
    "shuffled_but_last": "another {other}'s, all but the last",
    "random": "random latents",
    "zero": "zeros",
    "reversed": "latents reversed",
    "soft": "{baseline}",
    "pause": "pause token",
}
"""What the base read after an anchor: a report's key, and the words of a table's column."""


def columns(report: dict[str, Any], *, other: str = "text") -> dict[str, str]:
    """The conditions that a report holds, in the order of tables, and each one's words.

    Args:
        report: With `change_percent` by condition.
        other: What the latents of `shuffled` are another one's of.
    """
    other = "passage" if report.get("shuffled_from") == "passage" else other
    baseline = KINDS[report.get("soft_setting", {}).get("kind", "soft")].baseline
    words = {**CONDITIONS, "latents": _measured(report), **_numbered(report)}
    present = report["change_percent"]
    return {
        name: heading.format(other=other, baseline=baseline)
        for name, heading in words.items()
        if name in present
    }


def _numbered(report: dict[str, Any]) -> dict[str, str]:
    """Words of conditions whose names have a number in them, or mean one."""
    words = {}
    for name in report["change_percent"]:
        again, _, count = name.partition(":")
        if again == "every":
            words[name] = f"latents again every {counted(int(count), 'token')}"
    for name, chain in report.get("chains", {}).items():
        time = " in the latents' time" if "latency" in chain else ""
        words[name] = f"chain of thought, {counted(chain['most_tokens'], 'token')}{time}"
    return words


def counted(count: int, what: str) -> str:
    """`1 latent`, `2 latents`."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def writes_latents(report: dict[str, Any]) -> bool:
    """Whether what was measured writes latents at all."""
    kind = report.get("setting", {}).get("kind")
    return kind not in KINDS or KINDS[kind].writes_latents


def arrival(report: dict[str, Any]) -> str:
    """What a caption adds of when the latents came; nothing where they came at once as always."""
    if late := report.get("delay"):
        return f", latents {counted(late, 'token')} late"
    return ", latents at once" if report.get("delays") else ""


def verdict(report: dict[str, Any]) -> str:
    """Where latents gain, where they do not, where they harm; or that it cannot be told."""
    unit = report.get("resampled", "passage")
    units = report.get(f"{unit}s")
    if isinstance(units, int) and units < FEWEST_UNITS:
        return (
            f"Too few texts to tell whether there is a gain: {counted(units, unit)} resampled, "
            f"where at least {FEWEST_UNITS} are needed."
        )
    changes = report["change_percent"]["latents"]
    gain, loss, none = _told(changes)
    sentences, what = [], _measured(report)
    if gain:
        sentences.append(f"With {what} the perplexity is lower at {_tokens(gain)}.")
    if none:
        sentences.append(f"No measured gain at {_tokens(none)}: the interval includes zero.")
    if loss:
        sentences.append(f"With {what} the perplexity is higher at {_tokens(loss)}.")
    return " ".join([*sentences, *_against(report)])


def _against(report: dict[str, Any]) -> list[str]:
    """For each control and baseline, where the latents' perplexity is another than its."""
    sentences, compared = [], report.get("latents_against", {})
    for name, words in columns(report).items():
        changes = compared.get(name, {})
        lower, higher, _ = _told(changes)
        where = [
            f"{side} at {_tokens(tokens)}"
            for side, tokens in (("lower", lower), ("higher", higher))
            if tokens
        ]
        if changes:
            said = ", ".join(where) or "no difference that can be told"
            sentences.append(f"Against {words}: {said}.")
    return sentences


def nearly_none(total: dict[str, Any]) -> str:
    """What to say where so few problems are solved that a difference says little, else nothing.

    Args:
        total: Of a report of problems, with `percent` by condition.
    """
    shares = [(total["percent"].get(name) or {}).get("value") for name in ("base", "latents")]
    if max((share for share in shares if share is not None), default=NEARLY_NONE) >= NEARLY_NONE:
        return ""
    return (
        f"Fewer than {NEARLY_NONE:g} % are solved, with or without latents: problems so hard "
        "for the base tell next to nothing of the latents."
    )


def few_problems(report: dict[str, Any]) -> str:
    """What to say of families with so few problems that their intervals say little, else nothing.

    Args:
        report: Of problems, with `families`.
    """
    asked = {family: cells["all"].get("problems") for family, cells in report["families"].items()}
    few = [name for name, n in asked.items() if isinstance(n, int) and n < FEWEST_UNITS]
    if not few:
        return ""
    return (
        f"Fewer than {FEWEST_UNITS} problems, and intervals not to be believed: {', '.join(few)}."
    )


def own_questions(report: dict[str, Any]) -> str:
    """How many questions of which files were asked, of a user's own; of made problems nothing.

    Args:
        report: Of problems, with `sources` if they are of files.
    """
    sources = report.get("sources")
    if not sources:
        return ""
    most, left_out = report.get("count"), report.get("left_out")
    return "".join([
        f"{counted(report['problems'], 'question')} of {', '.join(sources)}",
        f", at most {most:,} of a file" if most else "",
        f", and {left_out:,} left out for lack of positions" if left_out else "",
    ])


def _told(changes: dict[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Tokens where the interval is below zero, above it and around it, of those measured."""
    known = {
        token: change
        for token, change in changes.items()
        if change["low"] is not None and change["high"] is not None
    }
    below = [token for token, change in known.items() if change["high"] < 0]
    above = [token for token, change in known.items() if change["low"] > 0]
    return below, above, [token for token in known if token not in below + above]


def _measured(report: dict[str, Any]) -> str:
    """What a report's `latents` are called, which a kind without any has none of."""
    return "latents" if writes_latents(report) else f"kind {report['setting']['kind']}"


def _tokens(tokens: Sequence[str]) -> str:
    return f"token{'' if len(tokens) == 1 else 's'} {', '.join(tokens)}"
