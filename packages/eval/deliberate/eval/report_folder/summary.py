"""What a report begins with: a few numbers, and the verdict in sentences.

results --> Figures, Said
"""

from collections.abc import Mapping
from typing import Any

from deliberate.core.verdict import verdict
from deliberate.eval.report_folder.blocks import Block, Figure, Figures, Said, Section
from deliberate.eval.report_folder.cost import extra_first_token
from deliberate.eval.report_folder.numbers import change, count, p_said
from deliberate.eval.report_folder.words import runs_of


def summary(results: Mapping[str, Any]) -> list[Section]:
    """The section of the verdict."""
    blocks: list[Block] = []
    figures = _figures(results)
    if figures:
        blocks.append(Figures(figures=figures))
    blocks += _sentences(results)
    return [Section(name="verdict", heading="Verdict", blocks=blocks)]


def _figures(results: Mapping[str, Any]) -> list[Figure]:
    """Of a single run: of several the tables say it, side by side."""
    if len(results["runs"]) != 1:
        return []
    found = []
    for _, report in runs_of(results, "perplexity"):
        row = report["change_percent"]["latents"]
        for token in dict.fromkeys((next(iter(row)), list(row)[-1])):
            cell = change(row[token])
            label = f"perplexity at token {token}"
            found.append(
                Figure(value=cell.text, interval=cell.interval, tone=cell.tone, label=label)
            )
    for _, report in runs_of(results, "problems"):
        cell = change(
            report["total"]["against_base"].get("latents"), unit="points", lower_is_better=False
        )
        label = f"of {count(report.get('problems'))} problems solved"
        found.append(Figure(value=cell.text, interval=cell.interval, tone=cell.tone, label=label))
    extra = extra_first_token(results, str(results["runs"][0]["name"]))
    if extra is not None:
        found.append(
            Figure(value=extra.text, interval=extra.interval, label="longer to the first token")
        )
    return found


def _sentences(results: Mapping[str, Any]) -> list[Said]:
    found: dict[str, list[str]] = {}
    for name, report in runs_of(results, "perplexity"):
        found.setdefault(name, []).append(verdict(dict(report)))
    for name, report in runs_of(results, "problems"):
        found.setdefault(name, []).append(_solved(report))
    if len(results["runs"]) > 1:
        said = [Said(text=" ".join(filter(None, each)), run=name) for name, each in found.items()]
    else:
        said = [Said(text=text) for each in found.values() for text in each if text]
    bench = results["tasks"].get("bench", {}).get("result") or {}
    sets = bench.get("sets") or {}
    if sets:
        said.append(Said(text=_asked(sets)))
    return said


def _solved(report: Mapping[str, Any]) -> str:
    found = report["total"]["against_base"].get("latents")
    if not found:
        return ""
    cell = change(found, unit="points", lower_is_better=False)
    side = {"better": "more", "worse": "fewer"}.get(cell.tone)
    what = (
        f"With latents {side} problems are solved"
        if side
        else "No difference in problems solved that can be told"
    )
    return (
        f"{what}: {cell.text} ({cell.interval}) of {count(report.get('problems'))}, "
        f"{p_said(found.get('p'))} by McNemar's test."
    )


def _asked(sets: Mapping[str, Mapping[str, Any]]) -> str:
    level = 0.05
    told = {
        name: each["difference"] for name, each in sets.items() if (each.get("p") or 0.0) < level
    }
    up = [name for name, difference in told.items() if difference > 0]
    down = [name for name, difference in told.items() if difference < 0]
    sentences = [
        f"On benchmarks {side} with latents: {', '.join(names)}."
        for side, names in (("better", up), ("worse", down))
        if names
    ]
    rest = len(sets) - len(up) - len(down)
    if rest:
        what = f"{rest} of {len(sets)} benchmarks" if sentences else "any benchmark"
        sentences.append(f"No difference that can be told on {what} (McNemar, p ≥ {level:g}).")
    return " ".join(sentences)
