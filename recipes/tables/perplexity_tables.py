"""Tables of perplexity: by token ahead, against controls, with latents that arrive late.

a table's declaration, what is kept of its runs --> tables and plots of the report's own blocks
"""

from dataclasses import replace

from experiments import Table as Declared
from page_parts import COSTS, MISSING, PICTURES, Page, Results, document, line_of

from deliberate.core.verdict import counted
from deliberate.eval.report_folder.blocks import Block, Cell, Plot, Said, Table
from deliberate.eval.report_folder.numbers import NONE, change, known, plain, signed
from deliberate.eval.report_folder.perplexity import BETTER, measured_on, perplexity
from deliberate.eval.report_folder.words import run_styles, titled

TOKENS = ("1", "2", "4", "8", "16", "32")
GROWN = ("1", "4", "16")
"""Tokens ahead that a plot by steps has a line of."""


def tokens(table: Declared, page: Page) -> list[Block]:
    """A row a run, a column a token ahead, and what each took."""
    results = page.of(table)
    there = [(run, found) for run, found in results if found]
    if not there:
        return [Said(text=f"{MISSING.capitalize()}: {', '.join(table.runs)}.")]
    base = there[0][1]["perplexity"]["base"]
    shown = [token for token in TOKENS if base.get(token) is not None]
    alone = [Cell(text="base alone, perplexity"), *(Cell(text=plain(base[t])) for t in shown)]
    rows = [[*alone, *([Cell(text=NONE)] * len(COSTS))]]
    for run, found in results:
        row = found["change_percent"]["latents"] if found else {}
        cells = [change(row.get(token)) for token in shown]
        if not found:
            cells = [Cell(text=MISSING), *cells[1:]]
        rows.append([Cell(text=run), *cells, *page.costs(run)])
    for name, values in table.paper.items():
        cells = [Cell(text=f"{signed(value)} %") for value in values]
        rows.append([Cell(text=f"paper: {name}"), *cells, *([Cell(text=NONE)] * len(COSTS))])
    note = f"{BETTER} {measured_on(there[0][1]).capitalize()}"
    grown = table.by == "steps"
    return [
        Table(
            caption="Change of perplexity against the base alone",
            head=["Run", *(f"Token {token}" for token in shown), *COSTS],
            rows=rows,
            note=note,
        ),
        *([_by_steps(table, page, there) if grown else _drawn(table, there)] * (len(there) > 1)),
    ]


def _drawn(table: Declared, there: Results) -> Plot:
    [section, *_] = perplexity(document("perplexity", there))
    plot = next(block for block in section.blocks if isinstance(block, Plot))
    return replace(plot, name=f"{PICTURES}/{table.name}", title=table.title)


def _by_steps(table: Declared, page: Page, there: Results) -> Plot:
    """Lines of some tokens ahead by the steps that each run took."""
    lines = []
    for style, token in enumerate(GROWN):
        found = [
            (page.kept[run].training.get("steps"), result["change_percent"]["latents"].get(token))
            for run, result in there
            if result
        ]
        grown = sorted((x, y) for x, y in found if x and y and known(y["value"]))
        lines.append(line_of(f"token {token}", grown, style=style + (style > 0)))
    return Plot(
        name=f"{PICTURES}/{table.name}",
        title=table.title,
        x_label="Steps",
        y_label="Change of perplexity, %",
        lines=lines,
        ticks=sorted({x for line in lines for x in line.x}),
        doubling=True,
        zero=True,
    )


def controls(table: Declared, page: Page) -> list[Block]:
    """Of each run, every condition against the base, and the latents against every condition."""
    blocks: list[Block] = []
    several = len(table.runs) > 1
    for run, found in page.of(table):
        if not found:
            blocks.append(Said(text=f"{MISSING.capitalize()}: {run}."))
            continue
        sections = perplexity(document("perplexity", [(run, found)]))
        for section in sections:
            if section.name in ("perplexity", "against"):
                blocks += [
                    _of_run(block, table, run if several else "") for block in section.blocks
                ]
    return blocks


def _of_run(block: Block, table: Declared, run: str) -> Block:
    """A block under the table's name, and the run's where there are several."""
    if isinstance(block, Plot):
        name, title = f"{PICTURES}/{table.name}", table.title
        return replace(block, name=f"{name}-{run}" if run else name, title=titled(run, title))
    return replace(block, caption=titled(run, block.caption)) if isinstance(block, Table) else block


def late(table: Declared, page: Page) -> list[Block]:
    """A row a run and delay, a column a token ahead."""
    rows, lines = [], []
    style = run_styles(table.runs)
    for run, found in page.of(table):
        delays = (found or {}).get("delays", {})
        changed = {delay: each["change_percent"]["latents"] for delay, each in delays.items()}
        first = [(int(delay), row["1"]) for delay, row in changed.items()]
        lines.append(line_of(run, first, style=style[run]))
        for delay, row in changed.items():
            cells = [change(row.get(token)) for token in TOKENS]
            rows.append([Cell(text=f"{run}, {counted(int(delay), 'token')} late"), *cells])
        if not found:
            rows.append([Cell(text=run), Cell(text=MISSING), *[Cell(text=NONE)] * len(TOKENS[1:])])
    return [
        Table(
            caption="Change of perplexity against the base alone, latents late",
            head=["Run", *(f"Token {token}" for token in TOKENS)],
            rows=rows,
            note=f"{BETTER} Token 1 is the first after the latents arrive, so that rows of "
            "different delays are of different tokens.",
        ),
        Plot(
            name=f"{PICTURES}/{table.name}",
            title=f"{table.title}, token 1",
            x_label="Tokens late",
            y_label="Change of perplexity, %",
            lines=lines,
            ticks=sorted({x for line in lines for x in line.x}),
            zero=True,
        ),
    ]
