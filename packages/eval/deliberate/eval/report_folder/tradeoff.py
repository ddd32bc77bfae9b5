"""Quality against latency: what each run buys for the time that it takes, and its rival.

perplexity, problems, cost --> Plots; the base is at 0, chain of thought is the rival
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from deliberate.core.verdict import counted
from deliberate.eval.report_folder.blocks import Block, Line, Number, Plot, Said, Section
from deliberate.eval.report_folder.cost import CACHED, base_row, result, row_of
from deliberate.eval.report_folder.numbers import known
from deliberate.eval.report_folder.problems import solved_axis
from deliberate.eval.report_folder.words import runs_of

X_LABEL = "Extra milliseconds to the first token"

NOTE = (
    "A chain of thought is where the base alone would be after as many tokens as the thought may "
    "have, whether or not it ended sooner; between the numbers of tokens that were timed, time is "
    "taken to be linear."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    """Where one way of answering is."""

    extra: Number
    """Milliseconds."""

    found: Mapping[str, Any]
    """`value`, `low` and `high`."""

    name: str
    """What is written beside it."""

    run: str = ""
    kind: str = ""


def tradeoff(results: Mapping[str, Any]) -> list[Section]:
    """The section of quality against latency, where both were measured."""
    blocks: list[Block] = [plot for plot in (_perplexity(results), _solved(results)) if plot]
    if any(line.label == "chain of thought" for each in blocks for line in _lines(each)):
        blocks.append(Said(text=NOTE, quiet=True))
    return [Section(name="tradeoff", heading="Quality against latency", blocks=blocks)]


def _lines(block: Block) -> Sequence[Line]:
    return block.lines if isinstance(block, Plot) else ()


def _perplexity(results: Mapping[str, Any]) -> Plot | None:
    points, token = [], ""
    for name, report in runs_of(results, "perplexity"):
        token, found = next(iter(report["change_percent"]["latents"].items()))
        points += _point(results, name, found)
    if not points:
        return None
    return Plot(
        name="quality-perplexity",
        title=f"Perplexity at token {token} against latency",
        x_label=X_LABEL,
        y_label="Change of perplexity, %",
        lines=[
            Line(label="base alone", x=[0], y=[0], style=1, joined=False),
            *_by_kind(points),
        ],
        zero=True,
    )


def _solved(results: Mapping[str, Any]) -> Plot | None:
    points, rivals, base = [], {}, None
    for name, report in runs_of(results, "problems"):
        shares = report["total"]["percent"]
        base = shares["base"]
        points += _point(results, name, shares.get("latents"))
        for condition, chain in (report.get("chains") or {}).items():
            thought = _thought(results, chain, shares.get(condition))
            rivals |= {point.name: point for point in thought}
    if base is None or not points:
        return None
    lines = [_line("base alone", [_Point(extra=0, found=base, name="")], 1), *_by_kind(points)]
    if rivals:
        lines.append(_line("chain of thought", list(rivals.values()), 2))
    if not any(y for line in lines for y in line.y):
        return None
    return Plot(
        name="quality-problems",
        title="Problems solved against latency",
        x_label=X_LABEL,
        y_label="Solved, %",
        lines=lines,
        bounds=solved_axis(lines),
    )


def _point(results: Mapping[str, Any], run: str, found: Mapping[str, Any] | None) -> list[_Point]:
    """Where a run is, if its cost was measured."""
    row = row_of(results, run)
    extra = (row.get("extra_seconds") or {}).get("median") if row else None
    if row is None or not found or not known(found.get("value")) or not known(extra):
        return []
    latents = row.get("latents")
    name = counted(latents, "latent") if isinstance(latents, int) and latents else run
    return [
        _Point(
            extra=1000 * extra,
            found=found,
            name=name,
            run=run,
            kind=str(row.get("kind") or ""),
        )
    ]


def _thought(
    results: Mapping[str, Any], chain: Mapping[str, Any], found: Mapping[str, Any] | None
) -> list[_Point]:
    """Where a chain of thought is, if what it may decode is within what was timed."""
    tokens = chain.get("most_tokens")
    if not isinstance(tokens, int) or not found or not known(found.get("value")):
        return []
    extra = _extra_seconds(results, tokens)
    if extra is None:  # more tokens than were timed: by what one took where it was measured
        token = (chain.get("latency") or {}).get("token_seconds")
        extra = tokens * token if known(token) else None
    if extra is None:
        return []
    return [_Point(extra=1000 * extra, found=found, name=counted(tokens, "token"))]


def _extra_seconds(results: Mapping[str, Any], tokens: int) -> float | None:
    """How much longer the base takes after so many tokens of its own; none if that is not known."""
    alone = ((base_row(results) or {}).get(CACHED) or {}).get("median")
    if not known(alone):
        return None
    timed: list[tuple[Number, float]] = [(0, 0.0)]
    for row in result(results).get("chain_of_thought") or []:
        time = (row.get(CACHED) or {}).get("median")
        if known(row.get("tokens")) and known(time):
            timed.append((row["tokens"], time - alone))
    for (few, less), (many, more) in pairwise(sorted(timed)):
        if few <= tokens <= many and few < many:
            return less + (more - less) * (tokens - few) / (many - few)
    return None


def _by_kind(points: Sequence[_Point]) -> list[Line]:
    """A line each kind of coprocessor."""
    kinds = list(dict.fromkeys(point.kind for point in points))
    styles = [0, *range(3, 2 + len(kinds))]  # 1 is the base's and 2 is chain of thought's
    return [
        _line(
            f"kind {kind}" if len(kinds) > 1 else "with latents",
            [point for point in points if point.kind == kind],
            style,
        )
        for kind, style in zip(kinds, styles, strict=True)
    ]


def _line(label: str, points: Sequence[_Point], style: int) -> Line:
    ordered = sorted(points, key=lambda point: point.extra)
    names = [point.name for point in ordered]
    alike = len(set(names)) < len(names)
    return Line(
        label=label,
        x=[point.extra for point in ordered],
        y=[point.found["value"] for point in ordered],
        low=[point.found["low"] for point in ordered],
        high=[point.found["high"] for point in ordered],
        names=[
            f"{point.run}, {point.name}" if names.count(point.name) > 1 else point.name
            for point in ordered
        ],
        style=style,
        # Runs of as many latents differ in something else, along which there is no line.
        joined=len(ordered) > 1 and not alike,
    )
