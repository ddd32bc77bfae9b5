"""What a report begins with: a few numbers, and the verdict in sentences.

results --> Figures, Said
"""

from collections.abc import Mapping
from typing import Any

from deliberate.core.verdict import nearly_none, verdict
from deliberate.eval.bench.mcnemar import FEWEST_TO_TELL, LEVEL
from deliberate.eval.report_folder.benchmarks import side, too_few
from deliberate.eval.report_folder.blocks import Block, Figure, Figures, Said, Section
from deliberate.eval.report_folder.cost import EXTREMES, extra_first_token
from deliberate.eval.report_folder.numbers import alike, change, count, known, p_said, points
from deliberate.eval.report_folder.words import asked, runs_of

MORE = {"better": "more", "worse": "fewer"}
"""Problems solved, by the tone of the difference."""


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
        tokens = [token for token, each in row.items() if each and known(each.get("value"))]
        for token in dict.fromkeys(tokens[:1] + tokens[-1:]):
            cell = change(row[token])
            label = f"perplexity at token {token}"
            found.append(
                Figure(value=cell.text, interval=cell.interval, tone=cell.tone, label=label)
            )
    for _, report in runs_of(results, "problems"):
        difference = report["total"]["against_base"].get("latents")
        cell = points(difference)
        where = "in which" if alike(difference) else "of"
        label = f"{where} {count(report.get('problems'))} problems are solved"
        found.append(Figure(value=cell.text, interval=cell.interval, tone=cell.tone, label=label))
    extra = extra_first_token(results, str(results["runs"][0]["name"]))
    if extra is not None:
        label = f"longer to the first token, median ({EXTREMES})"
        found.append(Figure(value=extra.text, interval=extra.interval, label=label))
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
    many, little = count(report.get("problems")), nearly_none(dict(report["total"]))
    if alike(found):
        same = f"Nothing differs in which of {many} problems are solved, with or without latents."
        return " ".join([same, little] if little else [same, *_against(report)])
    problems = report.get("problems")
    if known(problems) and problems < FEWEST_TO_TELL:
        return f"Too few problems to tell whether latents solve more: {many}."
    cell = points(found)
    how_many = MORE.get(cell.tone)
    what = (
        f"With latents {how_many} problems are solved"
        if how_many
        else "No difference in problems solved that can be told"
    )
    first = (
        f"{what}: {cell.text} ({cell.interval}) of {many}, "
        f"{p_said(found.get('p'))} by McNemar's test."
    )
    return " ".join([first, little] if little else [first, *_against(report)])


def _against(report: Mapping[str, Any]) -> list[str]:
    """For each control and baseline, and each chain of thought, whether latents solve more."""
    compared = report["total"].get("latents_against") or {}
    sentences = []
    for name, words in asked(report).items():
        if not compared.get(name):
            continue
        how_many = MORE.get(points(compared[name]).tone)
        none = "nothing differs" if alike(compared[name]) else "no difference that can be told"
        said = f"{how_many} solved" if how_many else none
        sentences.append(f"Against {words}: {said}.")
    return sentences


def _asked(sets: Mapping[str, Mapping[str, Any]]) -> str:
    told = {name: side(each) for name, each in sets.items()}
    up, down = ([name for name in told if told[name] == tone] for tone in ("better", "worse"))
    sentences = [
        f"On benchmarks {tone} with latents: {', '.join(names)}."
        for tone, names in (("better", up), ("worse", down))
        if names
    ]
    few = too_few(sets)
    if few:
        sentences.append(
            f"Too few questions to tell on {', '.join(few)}: of fewer than {FEWEST_TO_TELL}, "
            f"McNemar's p is never below {LEVEL:g}."
        )
    rest = len(sets) - len(up) - len(down) - len(few)
    if rest:
        what = f"{rest} of {len(sets)} benchmarks" if sentences else "any benchmark"
        sentences.append(f"No difference that can be told on {what} (McNemar, p ≥ {LEVEL:g}).")
    return " ".join(sentences)
