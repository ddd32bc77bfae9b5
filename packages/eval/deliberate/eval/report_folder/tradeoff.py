"""Quality against latency: what each run buys for the time that it takes, and its rival.

perplexity, problems, cost --> Plots; the base is at 0, chain of thought is the rival
"""

from collections.abc import Mapping
from typing import Any

from deliberate.eval.report_folder.blocks import Line, Number, Plot, Section
from deliberate.eval.report_folder.cost import CACHED, base_row, result, row_of
from deliberate.eval.report_folder.numbers import counted, known
from deliberate.eval.report_folder.words import runs_of

X_LABEL = "Extra milliseconds to the first token"

Point = tuple[Number, Number, Number, Number, str]
"""Milliseconds, a value, its low, its high, what is written beside it."""


def tradeoff(results: Mapping[str, Any]) -> list[Section]:
    """The section of quality against latency, where both were measured."""
    plots = [plot for plot in (_perplexity(results), _solved(results)) if plot]
    return [Section(name="tradeoff", heading="Quality against latency", blocks=plots)]


def _perplexity(results: Mapping[str, Any]) -> Plot | None:
    points = []
    for name, report in runs_of(results, "perplexity"):
        token, found = next(iter(report["change_percent"]["latents"].items()))
        points += _point(results, name, found)
    if not points:
        return None
    lines = [
        Line(label="base alone", x=[0], y=[0], style=1, joined=False),
        _line("with latents", points, 0),
    ]
    return Plot(
        name="quality-perplexity",
        title=f"Perplexity at token {token} against latency",
        x_label=X_LABEL,
        y_label="Change of perplexity, %",
        lines=lines,
        zero=True,
    )


def _solved(results: Mapping[str, Any]) -> Plot | None:
    points, rivals, base = [], {}, None
    for name, report in runs_of(results, "problems"):
        shares = report["total"]["percent"]
        base = shares["base"]
        points += _point(results, name, shares.get("latents"))
        for condition, found in shares.items():
            rivals |= {point[4]: point for point in _thought(results, condition, found)}
    if base is None or not points:
        return None
    lines = [
        _line("base alone", [(0.0, base["value"], base["low"], base["high"], "")], 1),
        _line("with latents", points, 0),
    ]
    if rivals:
        lines.append(_line("chain of thought", list(rivals.values()), 2))
    return Plot(
        name="quality-problems",
        title="Problems solved against latency",
        x_label=X_LABEL,
        y_label="Solved, %",
        lines=lines,
    )


def _point(results: Mapping[str, Any], run: str, found: Mapping[str, Any] | None) -> list[Point]:
    """Where a run is, if its cost was measured."""
    row = row_of(results, run)
    extra = (row.get("extra_seconds") or {}).get("median") if row else None
    if row is None or not found or not known(extra):
        return []
    latents = row.get("latents")
    beside = counted(latents, "latent") if isinstance(latents, int) else run
    return [(1000 * extra, found["value"], found["low"], found["high"], beside)]


def _thought(results: Mapping[str, Any], condition: str, found: Mapping[str, Any]) -> list[Point]:
    """Where a chain of thought is, if one of as many tokens was timed."""
    what, _, number = condition.partition(":")
    timed = result(results).get("chain_of_thought") or []
    rows = [row for row in timed if str(row.get("tokens")) == number]
    if not number and len(timed) == 1:
        rows = timed
    alone = (base_row(results) or {}).get(CACHED) or {}
    if what != "cot" or not rows or not known(alone.get("median")):
        return []
    time = (rows[0].get(CACHED) or {}).get("median")
    if not known(time):
        return []
    beside = counted(rows[0]["tokens"], "token")
    extra = 1000 * (time - alone["median"])
    return [(extra, found["value"], found["low"], found["high"], beside)]


def _line(label: str, points: list[Point], style: int) -> Line:
    ordered = sorted(points)
    return Line(
        label=label,
        x=[point[0] for point in ordered],
        y=[point[1] for point in ordered],
        low=[point[2] for point in ordered],
        high=[point[3] for point in ordered],
        names=[point[4] for point in ordered],
        style=style,
        joined=len(ordered) > 1,
    )
