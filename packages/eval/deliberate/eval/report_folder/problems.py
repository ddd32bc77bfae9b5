"""Problems: how many are solved, by family and number of steps, under each condition."""

from collections.abc import Mapping, Sequence
from typing import Any

from deliberate.core.verdict import counted, few_problems, nearly_none, own_questions
from deliberate.eval.report_folder.blocks import (
    Block,
    Cell,
    Line,
    Number,
    Plot,
    Said,
    Section,
    Table,
)
from deliberate.eval.report_folder.numbers import count, p_value, points, share
from deliberate.eval.report_folder.words import asked, run_styles, runs_of, styles, titled

ALL = "all"

LEAST_TOP = 10.0
"""Percent: so far at least the second axis reaches."""

ROOM = 1.05
"""The axis over what it shows."""


def problems(results: Mapping[str, Any]) -> list[Section]:
    """The section of problems."""
    runs = runs_of(results, "problems")
    blocks: list[Block] = [*_drawn(runs), *([_together(runs)] if len(runs) > 1 else [])]
    for name, report in runs:
        run = name if len(runs) > 1 else ""
        little = nearly_none(dict(report["total"]))
        blocks += [Said(text=little, run=run, quiet=True)] if little else []
        by_steps = _by_steps(run, report)
        blocks += [_solved(run, report), _differences(run, report)]
        blocks += [by_steps] if by_steps.rows else []
    return [Section(name="problems", heading="Problems", blocks=blocks)]


def _latents_first(report: Mapping[str, Any]) -> dict[str, str]:
    """The conditions' words, in the order of a table's columns."""
    words = asked(report)
    return {name: words[name] for name in ("latents", *words) if name in words}


def _steps(rows: Mapping[str, Any]) -> list[str]:
    return [steps for steps in rows if steps != ALL]


def _cells(report: Mapping[str, Any]) -> dict[str, Any]:
    """Each family as a whole, and all problems."""
    wholes = {family: cells[ALL] for family, cells in report["families"].items()}
    return {**wholes, "all problems": report["total"]}


def _solved(run: str, report: Mapping[str, Any]) -> Table:
    """A row a family, and the total last."""
    words, shots = _latents_first(report), report.get("shots", 0)
    own = own_questions(dict(report))
    return Table(
        caption=titled(run, "problems solved"),
        head=["File" if own else "Family", *words.values(), "Problems"],
        rows=[
            [
                Cell(text=name),
                *(share(cell["percent"].get(condition)) for condition in words),
                Cell(text=count(cell["problems"])),
            ]
            for name, cell in _cells(report).items()
        ],
        note=" ".join([
            "Answers are decoded greedily, and are right or wrong as a whole. Intervals from "
            "resampling problems; where all or none are solved they have no width and say little.",
            *([f"{own}."] if own else []),
            *([f"Each after {counted(shots, 'solved one')}."] if shots else []),
            *filter(None, [few_problems(dict(report))]),
        ]),
    )


def _together(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """A row a family, a column a run."""
    return Table(
        caption="Problems solved, runs side by side",
        head=[
            "File" if own_questions(dict(runs[0][1])) else "Family",
            *(name for name, _ in runs),
            "base alone",
            "Problems",
        ],
        rows=[
            [
                Cell(text=name),
                *(
                    share(_cells(report).get(name, {}).get("percent", {}).get("latents"))
                    for _, report in runs
                ),
                share(cell["percent"]["base"]),
                Cell(text=count(cell["problems"])),
            ]
            for name, cell in _cells(runs[0][1]).items()
        ],
        note="Each run with its latents.",
    )


def _by_steps(run: str, report: Mapping[str, Any]) -> Table:
    words = _latents_first(report)
    return Table(
        caption=titled(run, "problems solved, by number of steps"),
        head=["Family and steps", *words.values(), "Problems"],
        rows=[
            [
                Cell(text=f"{family}, {steps}"),
                *(share(cells[steps]["percent"].get(condition)) for condition in words),
                Cell(text=count(cells[steps]["problems"])),
            ]
            for family, cells in report["families"].items()
            for steps in _steps(cells)
            if any((found or {}).get("value") for found in cells[steps]["percent"].values())
        ],
        note="Where any are solved.",
        folded=True,
    )


def _differences(run: str, report: Mapping[str, Any]) -> Table:
    words, total = asked(report), report["total"]
    compared = [
        (f"{words[name]} against the base", found)
        for name, found in total.get("against_base", {}).items()
    ] + [
        (f"latents against {words[name]}", found)
        for name, found in total.get("latents_against", {}).items()
    ]
    return Table(
        caption=titled(run, "differences over all problems, paired"),
        head=["Compared", "Difference", "Gained", "Lost", "p (McNemar)"],
        rows=[
            [
                Cell(text=what),
                points(found),
                Cell(text=count(found.get("gained"))),
                Cell(text=count(found.get("lost"))),
                Cell(text=p_value(found.get("p"))),
            ]
            for what, found in compared
        ],
        note="Gained: solved by the first alone. Lost: by the second alone.",
    )


def _drawn(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Block]:
    """A plot a family, of those where anything is solved, and once how each line looks."""
    if not runs:
        return []
    stepped = [family for family, cells in runs[0][1]["families"].items() if _steps(cells)]
    lines = {family: _lines(family, runs) for family in stepped}
    solved = [family for family in stepped if any(y for line in lines[family] for y in line.y)]
    none = [family for family in stepped if family not in solved]
    blocks: list[Block] = [
        _plot(number + 1, family, lines[family], keys=len(solved) == 1)
        for number, family in enumerate(solved)
    ]
    shown = {line.label: line for family in solved for line in lines[family] if any(line.y)}
    if len(solved) > 1:
        title = "The lines of the plots of problems"
        blocks.append(
            Plot(
                name="problems-lines",
                title=title,
                x_label="",
                y_label="",
                lines=list(shown.values()),
                keys_alone=True,
            )
        )
    if none:
        text = f"Nothing is solved by anyone, so nothing is drawn: {', '.join(none)}."
        blocks.append(Said(text=text, quiet=True))
    return blocks


def _plot(number: int, family: str, lines: Sequence[Line], *, keys: bool) -> Plot:
    """Of one run its conditions, of several the base and each run's latents."""
    drawn = [line for line in lines if any(line.y)]
    none = ", ".join(line.label for line in lines if not any(line.y))
    return Plot(
        name=f"problems-{number}",
        title=f"Problems solved: {family}",
        x_label="Steps",
        y_label="Solved, %",
        lines=drawn,
        ticks=sorted({x for line in lines for x in line.x}),
        bounds=solved_axis(drawn),
        note=f"Nothing is solved, so nothing is drawn, of: {none}." if none else "",
        beside=True,
        keys=keys,
    )


def solved_axis(lines: Sequence[Line]) -> tuple[Number, Number]:
    """The bounds of an axis of shares: from 0, and not so near that a chance looks like much."""
    highest = max((high for line in lines for high in line.high), default=0.0)
    return 0.0, ROOM * max(LEAST_TOP, highest)


def _lines(family: str, runs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Line]:
    first = runs[0][1]
    if len(runs) == 1:
        words = asked(first)
        style = styles(list(words))
        wanted = [(words[name], first, name, style[name]) for name in words]
    else:
        style = run_styles([name for name, _ in runs])
        wanted = [("base alone", first, "base", 1)]
        wanted += [(name, report, "latents", style[name]) for name, report in runs]
    found = []
    for label, report, condition, number in wanted:
        cells = report["families"].get(family, {})
        points = [
            (float(steps), cells[steps]["percent"][condition])
            for steps in _steps(cells)
            if condition in cells[steps]["percent"]
        ]
        found.append(
            Line(
                label=label,
                x=[x for x, _ in points],
                y=[y["value"] for _, y in points],
                low=[y["low"] for _, y in points],
                high=[y["high"] for _, y in points],
                style=number,
            )
        )
    return found
