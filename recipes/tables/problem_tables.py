"""Tables of made problems: against chains of thought, and by number of steps.

a table's declaration, what is kept of its runs --> tables and plots of the report's own blocks
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from experiments import Table as Declared
from page_parts import MISSING, PICTURES, Page, Results, document, line_of

from deliberate.core.verdict import writes_latents
from deliberate.eval.bench.mcnemar import McNemar
from deliberate.eval.bootstrap import mean
from deliberate.eval.report_folder.blocks import Block, Cell, Plot, Said, Table
from deliberate.eval.report_folder.numbers import NONE, count, p_value, plain, points, share
from deliberate.eval.report_folder.problems import problems, solved_axis
from deliberate.eval.report_folder.words import asked, run_styles

COMPARED = {
    "base": ("against_base", "latents"),
    "another's": ("latents_against", "shuffled"),
    "another's but the last": ("latents_against", "shuffled_but_last"),
}
"""What the latents are compared with by number of steps, and where in a cell it is."""


def chains(table: Declared, page: Page) -> list[Block]:
    """A row a run and condition: problems solved, and what the latents solve more or less."""
    rows = []
    for run, found in page.of(table):
        if not found:
            empty = [Cell(text=NONE)] * 5
            rows.append([Cell(text=run), Cell(text=MISSING), *empty])
            continue
        total, words = found["total"], asked(found)
        apart = {"base": total["against_base"]["latents"], **total["latents_against"]}
        rows += [
            [
                Cell(text=f"{run}: {words[name]}"),
                share(solved),
                *_tested(apart.get(name)),
                Cell(text=plain(_extra(found, name), places=1)),
            ]
            for name, solved in total["percent"].items()
        ]
    return [
        Table(
            caption="Problems solved, and the latents against each",
            head=["", "Solved", "Latents against it", "Gained", "Lost", "p (McNemar)", "Tokens"],
            rows=rows,
            note="Answers are decoded greedily. Gained: solved with latents alone; lost: solved "
            "without them alone. Tokens: latents, or a chain of thought with its cues. Intervals "
            "from resampling problems; where none are solved they have no width and say nothing.",
        )
    ]


def _extra(found: Mapping[str, Any], name: str) -> float | None:
    chain = found.get("chains", {}).get(name)
    if chain:
        return chain["extra_tokens"]
    thinks = name != "base" and writes_latents(dict(found))
    return found["setting"]["latents"] if thinks else None


def reasoning(table: Declared, page: Page) -> list[Block]:
    """By number of steps: the base and every run's latents, and tests of what differs."""
    results = page.of(table)
    there = [(run, found) for run, found in results if found]
    missing = [run for run, found in results if not found]
    blocks: list[Block] = (
        [Said(text=f"{MISSING.capitalize()}: {', '.join(missing)}.")] if missing else []
    )
    if not there:
        return blocks
    first = there[0][1]
    steps = [each for each in next(iter(first["families"].values())) if each != "all"]
    wanted = [("base alone", first, "base"), *((run, each, "latents") for run, each in there)]
    shares = {
        label: {each: _solved(found, each, condition) for each in [*steps, "all"]}
        for label, found, condition in wanted
    }
    rows = [
        [Cell(text=each), *(share(found[each]) for found in shares.values())]
        for each in [*steps, "all"]
    ]
    style = {"base alone": 1, **run_styles([run for run, _ in there])}
    lines = [
        line_of(label, [(int(each), found[each]) for each in steps], style=style[label])
        for label, found in shares.items()
    ]
    [section] = problems(document("problems", there))
    by_family = next(block for block in section.blocks if isinstance(block, Table))
    return [
        *blocks,
        Table(
            caption="Problems solved, by number of steps",
            head=["Steps", *shares],
            rows=rows,
            note=f"{count(first['problems'])} held-out problems of {len(first['families'])} "
            "families. Latents are "
            "written once, at the end of the question. Intervals from resampling problems.",
        ),
        Plot(
            name=f"{PICTURES}/{table.name}",
            title=table.title,
            x_label="Steps",
            y_label="Solved, %",
            lines=lines,
            ticks=[int(each) for each in steps],
            bounds=solved_axis(lines),
            beside=True,
        ),
        _differences(there, [*steps, "all"]),
        by_family,
    ]


def _differences(there: Results, steps: Sequence[str]) -> Table:
    """Each run's latents against the base and against another question's, by number of steps."""
    rows = []
    for run, found in there:
        for each in steps:
            cells = [
                cell
                for group, name in COMPARED.values()
                for cell in _tested(_apart(found or {}, each, group, name))
            ]
            rows.append([Cell(text=f"{run}, {each}"), *cells])
    return Table(
        caption="Latents against the base alone, another question's, and another question's "
        "but for the last",
        head=[
            "Run, steps",
            *(
                f"{head}, {what}"
                for what in COMPARED
                for head in ("Difference", "gained", "lost", "p")
            ),
        ],
        rows=rows,
        note="In points, paired over the same problems; gained: solved with the latents alone; p "
        "by McNemar's test, not corrected for how many tests there are. With the last latent of "
        "another question answers fail by construction where the start was warm, since that one "
        "carries the next token: the last comparison tells whether the others matter.",
    )


def _cells(found: Mapping[str, Any], steps: str) -> Iterator[Mapping[str, Any]]:
    """The cells of all families of a number of steps, or of all."""
    return (cells[steps] for cells in found["families"].values() if steps in cells)


def _solved(found: Mapping[str, Any], steps: str, condition: str) -> dict[str, float]:
    """The share of problems solved over all families."""
    if steps == "all":
        return found["total"]["percent"][condition]
    cells = list(_cells(found, steps))
    right = sum(
        round(cell["percent"][condition]["value"] * cell["problems"] / 100) for cell in cells
    )
    asked_of = sum(cell["problems"] for cell in cells)
    return asdict(mean(np.repeat([100.0, 0.0], [right, asked_of - right])))


def _apart(found: Mapping[str, Any], steps: str, group: str, name: str) -> dict[str, Any] | None:
    """A paired difference over all families, in points, and its test."""
    cells = [cell for cell in _cells(found, steps) if name in cell[group]]
    if not cells:
        return None
    gained, lost = (sum(cell[group][name][key] for cell in cells) for key in ("gained", "lost"))
    same = sum(cell["problems"] for cell in cells) - gained - lost
    difference = mean(np.repeat([100.0, -100.0, 0.0], [gained, lost, same]))
    return {
        **asdict(difference),
        "gained": gained,
        "lost": lost,
        "p": McNemar(gained=gained, lost=lost).p,
    }


def _tested(found: Mapping[str, Any] | None) -> list[Cell]:
    if not found:
        return [Cell(text=NONE)] * 4
    numbers = [Cell(text=count(found["gained"])), Cell(text=count(found["lost"]))]
    return [points(found), *numbers, Cell(text=p_value(found["p"]))]
