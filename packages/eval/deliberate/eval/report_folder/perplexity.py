"""Perplexity by token ahead: tables and plots of each run, and of several side by side.

Source: arXiv:2412.17747, table 1 and figure 3; the controls and intervals are ours.
"""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from deliberate.core.verdict import FEWEST_UNITS, arrival, counted, writes_latents
from deliberate.eval.report_folder.blocks import Block, Cell, Line, Plot, Said, Section, Table
from deliberate.eval.report_folder.numbers import TIMES, change, known, plain
from deliberate.eval.report_folder.words import conditions, run_styles, runs_of, styles, titled

FAR = 10
"""What is worse by more than this many times the latents' change is not drawn."""

MARGIN = 0.06
"""Of the second axis, above and below what is drawn."""

BETTER = (
    f"Lower is better; {TIMES} N is N times the base's perplexity. "
    "Bold: the 95 % interval excludes zero."
)

Changes = Mapping[str, Mapping[str, Any]]
"""By token ahead."""


def perplexity(results: Mapping[str, Any]) -> list[Section]:
    """The sections of perplexity."""
    runs = runs_of(results, "perplexity")
    found: list[Block] = [] if len(runs) < 2 else [_together(runs), _plot_together(runs)]
    plots, tables, against, late, domains = [], [], [], [], []
    for number, (name, report) in enumerate(runs):
        run = name if len(runs) > 1 else ""
        tables.append(_changes(run, report))
        plots.append(_plot(number, run, report))
        against += [_against(run, report)] if report.get("latents_against") else []
        late += [_late(run, report)] if report.get("delays") else []
        domains += [_domains(run, report)] if report.get("domains") else []
    found += [*tables, *plots] if len(runs) < 2 else [*plots, *tables]
    return [
        Section(name="perplexity", heading="Perplexity by token ahead", blocks=found),
        Section(name="against", heading="Against other latents", blocks=against),
        Section(name="late", heading="Late latents", blocks=late),
        Section(name="domains", heading="By domain", blocks=domains),
    ]


def measured_on(report: Mapping[str, Any]) -> str:
    """How much was measured, and what was resampled."""
    parts = [
        counted(report[key], word)
        for key, word in (("anchors", "anchor"), ("passages", "passage"), ("documents", "document"))
        if isinstance(report.get(key), int)
    ]
    said = f"{', '.join(parts)}; " if parts else ""
    return f"{said}intervals from a bootstrap over {report.get('resampled', 'passage')}s."


def _changes(run: str, report: Mapping[str, Any]) -> Table:
    """A row a token, a column a condition."""
    words, base = conditions(report), report["perplexity"]["base"]
    arrive = arrival(dict(report))
    return Table(
        caption=titled(run, f"change of perplexity against the base alone{arrive}"),
        head=["Token ahead", *words.values(), "Base perplexity"],
        rows=[
            [
                Cell(text=token),
                *(change(report["change_percent"][name].get(token)) for name in words),
                Cell(text=plain(value, places=3)),
            ]
            for token, value in base.items()
        ],
        note=f"{BETTER} {measured_on(report).capitalize()}",
    )


def _rows(rows: Mapping[str, Changes], tokens: Sequence[str]) -> list[list[Cell]]:
    return [
        [Cell(text=name), *(change(row.get(token)) for token in tokens)]
        for name, row in rows.items()
    ]


def _heads(tokens: Sequence[str]) -> list[str]:
    return [f"Token {token}" for token in tokens]


def _against(run: str, report: Mapping[str, Any]) -> Table:
    words, tokens = conditions(report), list(report["perplexity"]["base"])
    compared = report["latents_against"]
    rows = {words[name]: compared[name] for name in words if name in compared}
    what = "latents" if writes_latents(dict(report)) else words["latents"]
    return Table(
        caption=titled(run, f"change of perplexity from each of these to the {what}, paired"),
        head=["Compared with", *_heads(tokens)],
        rows=_rows(rows, tokens),
        note=f"{BETTER} Below zero: the right latents help more than what they are compared with.",
    )


def _late(run: str, report: Mapping[str, Any]) -> Table:
    tokens = list(report["perplexity"]["base"])
    rows = {
        counted(int(delay), "token"): each["change_percent"]["latents"]
        for delay, each in report["delays"].items()
    }
    return Table(
        caption=titled(run, "change of perplexity with latents that arrive late"),
        head=["Late by", *_heads(tokens)],
        rows=_rows(rows, tokens),
        note=f"{BETTER} Each row is of other tokens: the first that the latents can help with.",
    )


def _domains(run: str, report: Mapping[str, Any]) -> Table:
    tokens = list(report["perplexity"]["base"])
    units = {
        name: (each.get(f"{each.get('resampled', 'passage')}s"), each.get("resampled", "passage"))
        for name, each in report["domains"].items()
    }
    rows = {
        f"{name} ({counted(number, what)})" if isinstance(number, int) else name: report["domains"][
            name
        ]["change_percent"]["latents"]
        for name, (number, what) in units.items()
    }
    few = [name for name, (n, _) in units.items() if isinstance(n, int) and n < FEWEST_UNITS]
    warning = f" Fewer than {FEWEST_UNITS}, so not to be believed: {', '.join(few)}." if few else ""
    return Table(
        caption=titled(run, "change of perplexity with latents, by domain"),
        head=["Domain", *_heads(tokens)],
        rows=_rows(rows, tokens),
        note=f"{BETTER}{warning}",
    )


def _together(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """The paper's table 1: a row a token, a column a run."""
    base = runs[0][1]["perplexity"]["base"]
    return Table(
        caption="Change of perplexity against the base alone, runs side by side"
        + arrival(dict(runs[0][1])),
        head=["Token ahead", *(_column(*each) for each in runs), "Base perplexity"],
        rows=[
            [
                Cell(text=token),
                *(change(each["change_percent"]["latents"].get(token)) for _, each in runs),
                Cell(text=plain(value, places=3)),
            ]
            for token, value in base.items()
        ],
        note=f"{BETTER} The same anchors for all: {measured_on(runs[0][1])}",
    )


def _column(name: str, report: Mapping[str, Any]) -> str:
    latents = report.get("setting", {}).get("latents")
    if not writes_latents(dict(report)):
        return f"{name}, no latents"
    return f"{name}, {counted(latents, 'latent')}" if isinstance(latents, int) else name


def _plot_together(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> Plot:
    style = run_styles([name for name, _ in runs])
    lines = [_line(name, report["change_percent"]["latents"], style[name]) for name, report in runs]
    return _axes("change", "Change of perplexity, runs side by side", lines)


def _plot(number: int, run: str, report: Mapping[str, Any]) -> Plot:
    words = conditions(report)
    style = styles(list(words))
    lines = [
        _line(heading, report["change_percent"][name], style[name])
        for name, heading in words.items()
    ]
    name = f"change-{number + 1}" if run else "change"
    return _axes(name, titled(run, "change of perplexity by token ahead"), lines)


def _line(label: str, row: Changes, style: int) -> Line:
    points = [
        (float(token), found)
        for token, found in row.items()
        if found and all(known(found.get(key)) for key in ("value", "low", "high"))
    ]
    return Line(
        label=label,
        x=[token for token, _ in points],
        y=[found["value"] for _, found in points],
        low=[found["low"] for _, found in points],
        high=[found["high"] for _, found in points],
        style=style,
    )


def _axes(name: str, title: str, lines: Sequence[Line]) -> Plot:
    limit = _limit(lines[0])
    beyond = {
        line.label: [f"{x:g}" for x, y in zip(line.x, line.y, strict=True) if y > limit]
        for line in lines
    }
    left_out = "; ".join(
        f"{label} at {'token' if len(tokens) == 1 else 'tokens'} {', '.join(tokens)}"
        for label, tokens in beyond.items()
        if tokens
    )
    note = f"Off the scale, so only in the table: {left_out}." if left_out else ""
    return Plot(
        name=name,
        title=title,
        x_label="Token ahead",
        y_label="Change of perplexity, %",
        lines=lines,
        ticks=sorted({token for line in lines for token in line.x}),
        doubling=True,
        bounds=_bounds(lines, limit) if left_out else None,
        note=" ".join(filter(None, ["The band is the latents' 95 % interval.", note])),
        zero=True,
    )


def _limit(own: Line) -> float:
    """Changes beyond this would hide the latents': by their median, and never less than theirs."""
    sizes = sorted(abs(value) for value in own.y)
    reach = max((abs(value) for value in (*own.y, *own.low, *own.high)), default=0.0)
    return max(reach, FAR * sizes[len(sizes) // 2]) if reach else inf


def _bounds(lines: Sequence[Line], limit: float) -> tuple[float, float]:
    """Of the second axis: what is drawn, and the latents' whole interval."""
    drawn = [y for line in lines for y in line.y if y <= limit]
    values = [0.0, *drawn, *lines[0].low, *lines[0].high]
    margin = MARGIN * (max(values) - min(values))
    return min(values) - margin, max(values) + margin


def said_of_runs(runs: Sequence[tuple[str, str]]) -> list[Said]:
    """A paragraph each, with the run's name where there are several."""
    return [Said(text=text, run=name if len(runs) > 1 else "") for name, text in runs if text]
