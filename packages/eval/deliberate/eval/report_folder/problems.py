"""Made problems: how many are solved, by family and number of steps, under each condition."""

from collections.abc import Mapping, Sequence
from typing import Any

from deliberate.eval.report_folder.blocks import Block, Cell, Line, Plot, Section, Table
from deliberate.eval.report_folder.numbers import change, count, p_value, share
from deliberate.eval.report_folder.words import asked, run_styles, runs_of, styles, titled

ALL = "all"


def problems(results: Mapping[str, Any]) -> list[Section]:
    """The section of problems."""
    runs = runs_of(results, "problems")
    blocks: list[Block] = [*_plots(runs), *([_together(runs)] if len(runs) > 1 else [])]
    for name, report in runs:
        run = name if len(runs) > 1 else ""
        blocks += [_solved(run, report), _differences(run, report), _by_steps(run, report)]
    return [Section(name="problems", heading="Problems", blocks=blocks)]


def _steps(rows: Mapping[str, Any]) -> list[str]:
    return [steps for steps in rows if steps != ALL]


def _cells(report: Mapping[str, Any]) -> dict[str, Any]:
    """Each family as a whole, and all problems."""
    wholes = {family: cells[ALL] for family, cells in report["families"].items()}
    return {**wholes, "all problems": report["total"]}


def _solved(run: str, report: Mapping[str, Any]) -> Table:
    """A row a family, and the total last."""
    words = asked(report)
    return Table(
        caption=titled(run, "problems solved"),
        head=["Family", "Problems", *words.values()],
        rows=[
            [
                Cell(text=name),
                Cell(text=count(cell["problems"])),
                *(share(cell["percent"].get(condition)) for condition in words),
            ]
            for name, cell in _cells(report).items()
        ],
        note="Answers are decoded greedily, and are right or wrong as a whole. Intervals from "
        "resampling problems; where all or none are solved they have no width and say little.",
    )


def _together(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> Table:
    """A row a family, a column a run."""
    return Table(
        caption="Problems solved, runs side by side",
        head=["Family", "Problems", "base alone", *(name for name, _ in runs)],
        rows=[
            [
                Cell(text=name),
                Cell(text=count(cell["problems"])),
                share(cell["percent"]["base"]),
                *(
                    share(_cells(report).get(name, {}).get("percent", {}).get("latents"))
                    for _, report in runs
                ),
            ]
            for name, cell in _cells(runs[0][1]).items()
        ],
        note="Each run with its latents.",
    )


def _by_steps(run: str, report: Mapping[str, Any]) -> Table:
    words = asked(report)
    return Table(
        caption=titled(run, "problems solved, by number of steps"),
        head=["Family and steps", "Problems", *words.values()],
        rows=[
            [
                Cell(text=f"{family}, {steps}"),
                Cell(text=count(cells[steps]["problems"])),
                *(share(cells[steps]["percent"].get(condition)) for condition in words),
            ]
            for family, cells in report["families"].items()
            for steps in _steps(cells)
        ],
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
                change(found, unit="points", lower_is_better=False),
                Cell(text=count(found.get("gained"))),
                Cell(text=count(found.get("lost"))),
                Cell(text=p_value(found.get("p"))),
            ]
            for what, found in compared
        ],
        note="Gained: solved by the first alone. Lost: by the second alone.",
    )


def _plots(runs: Sequence[tuple[str, Mapping[str, Any]]]) -> list[Plot]:
    """A plot a family: of one run its conditions, of several the base and each run's latents."""
    if not runs:
        return []
    first = runs[0][1]
    return [
        Plot(
            name=f"problems-{number + 1}",
            title=f"Problems solved: {family}",
            x_label="Steps",
            y_label="Solved, %",
            lines=_lines(family, runs),
            ticks=[float(steps) for steps in _steps(cells)],
            beside=True,
        )
        for number, (family, cells) in enumerate(first["families"].items())
        if _steps(cells)
    ]


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
