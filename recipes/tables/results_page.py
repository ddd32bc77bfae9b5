"""The page `docs/results.md` and its plots, of what is kept by now; nothing is measured.

docs/results/NAME.json --tables--> docs/results.md, docs/results/TABLE.png
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from claims import claims
from experiments import COST, Experiments
from measured import read
from page_parts import COSTS, MISSING, PICTURES, Page
from perplexity_tables import controls, late, tokens
from problem_tables import chains, reasoning

from deliberate.core.atomic import write_bytes
from deliberate.eval.report_folder import require_report
from deliberate.eval.report_folder.blocks import Block, Cell, Code, Line, Plot, Said, Section, Table
from deliberate.eval.report_folder.document import Heading
from deliberate.eval.report_folder.markdown import markdown
from deliberate.eval.report_folder.numbers import NONE, count, seconds, size

PAGE = "results.md"

NAMES = (
    "Runs: full-4 is the full copy with 4 latents; the number after full, soft, pause, scratch, "
    "hidden, half, paper and solve is that of latents, after lora the rank, after ahead the tokens "
    "ahead in training, after late the delay in training. solve-… learned made problems, continued "
    "is the base itself trained on, eighth, quarter and half are shorter runs. Token N is the Nth "
    "after an anchor, the place after which latents are inserted; stdlib is the source of the "
    "standard library, of which the measured modules are held out from base and coprocessor."
)

SHOWN = {
    "tokens": tokens,
    "controls": controls,
    "late": late,
    "chains": chains,
    "reasoning": reasoning,
}
"""How a table is shown, by the word that its declaration has for it."""


def write_page(experiments: Experiments, base: str, output: Path) -> Path:
    """Write the page and its plots.

    Args:
        experiments: What is declared.
        base: Fingerprint of the base.
        output: Folder of the page, and of `results/`.

    Raises:
        DeliberateError: what draws plots is not installed.
        ValueError: a file of results cannot be read.
    """
    require_report()
    from deliberate.eval.report_folder.draw import png  # slow to import

    names = [*experiments.runs, *experiments.bases]
    kept = {name: read(output / PICTURES, name, experiments.key(name, base)) for name in names}
    page = Page(experiments=experiments, base=base, kept=kept)
    found = sections(page)
    for plot in (block for each in found for block in each.blocks if isinstance(block, Plot)):
        path = output / f"{plot.name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, png(plot))
    heading = Heading(title="Results", lead=_lead(page))
    path = output / PAGE
    output.mkdir(parents=True, exist_ok=True)
    write_bytes(path, markdown(heading, found).encode())
    return path


def sections(page: Page) -> Sequence[Section]:
    """Everything that the page says, in its order."""
    found = [
        Section(name="claims", heading="Which claims hold", blocks=claims(page)),
        Section(name="made", heading="How it was made", blocks=_made(page)),
    ]
    for table in page.experiments.tables.values():
        blocks = [block for block in SHOWN[table.show](table, page) if _has_something(block)]
        said: list[Block] = [Said(text=table.note)] if table.note else []
        command = Code(caption="Made by", text=f"make results ONLY={table.name}")
        found.append(
            Section(name=table.name, heading=table.title, blocks=[*blocks, *said, command])
        )
    found.append(Section(name="runs", heading="Runs, and what they cost", blocks=_runs(page)))
    found.append(Section(name="commands", heading="Commands", blocks=_commands(page)))
    return found


def _lead(page: Page) -> str:
    """How much of it there is."""
    experiments = page.experiments
    wanted = {(run, table.measure) for table in experiments.tables.values() for run in table.runs}
    there = sum(page.result(*each) is not None for each in wanted)
    lead = "The paper's tables at the scale of a small base on a machine without a GPU"
    if there == len(wanted):
        return f"{lead}: all {there} measurements are there."
    return (
        f"{lead}: {there} of {len(wanted)} measurements are there, the rest are marked '{MISSING}'."
    )


def _made(page: Page) -> list[Block]:
    recipe = page.experiments.common
    train, objective = recipe.train, recipe.objective
    made = [
        each["made"]
        for kept in page.kept.values()
        for each in (*([kept.training] if kept.training else []), *kept.measures.values())
    ]
    machines, commits = (
        sorted({str(each[key]) for each in made if each.get(key)}) for key in ("machine", "commit")
    )
    versions = sorted({f"{name} {v}" for each in made for name, v in _versions(each)})
    return [
        Said(
            text=f"Base {recipe.base.id}, fingerprint {page.base}. Runs of one table have the same "
            f"budget, unless a row says otherwise: {count(train.steps)} steps of {train.batch} "
            f"texts of {recipe.data.length} tokens of {recipe.data.train} (runs on problems have "
            f"another, listed under Runs), {objective.anchors} anchors in "
            f"each, {objective.ahead} tokens ahead, seed {train.seed}. Each run was trained once, "
            "so intervals are over texts or problems and not over seeds; what a seed does is under "
            "Seeds. The rates of full-4 and soft-4 are compared with others under Rates; those of "
            "the other kinds were not tuned, and differ, as listed under Runs."
        ),
        Said(text=NAMES),
        Said(
            text=f"Machines, with their cores: {'; '.join(machines) or NONE}. "
            f"{', '.join(versions) or NONE}. Commits: {', '.join(commits) or NONE}."
        ),
        Said(
            text="All numbers of a run are in results/NAME.json, and a number is used as long as "
            "recipe, base and arguments are what they were. FLOPs come from a formula and not from "
            "a profiler. CPU hours are the training process's. Extra FLOPs and the first token's "
            "delay are of one answer after a prompt of half the base's positions that is in the "
            "cache already, on one thread: the median, and the least and the most of five "
            "(deliberate eval --cost). CPU hours, wall times and delays compare only among runs of "
            "one machine: bigger, scratch-16, scratch-32, solve-8-longer and tuned-4 ran on an "
            "EPYC with AVX2 alone, beside one another and other work; full-8 on such a one too; "
            "most others on one with AVX-512, about three times as fast."
        ),
        Code(caption="All of it, going on where it was stopped", text="make results"),
    ]


def _versions(made: Mapping[str, Any]) -> list[tuple[str, str]]:
    names = {"python": "Python", "torch": "torch", "transformers": "transformers"}
    return [(said, str(made[name])) for name, said in names.items() if made.get(name)]


def _runs(page: Page) -> list[Block]:
    rows = []
    for run, kept in page.kept.items():
        training = kept.training
        rows.append([
            Cell(text=run),
            Cell(text=_changes(page.experiments, run)),
            Cell(text=count(training.get("seed")) if training else MISSING),
            *page.costs(run),
            Cell(text=seconds(training.get("seconds")).text),
            Cell(text=size(page.memory(run))),
        ])
    return [
        Table(
            caption="Runs",
            head=["Run", "Changes", "Seed", *COSTS, "Wall time", "Peak memory"],
            rows=rows,
            note="Wall time: of the steps, beside other runs on the same machine. Peak memory: of "
            "answering, weights included.",
        )
    ]


def _changes(experiments: Experiments, run: str) -> str:
    if run in experiments.bases:
        layers = experiments.bases[run]["layers"]
        return f"a base of {layers} layers"
    return ", ".join(experiments.changes(run, lambda named: named)) or NONE


def _commands(page: Page) -> list[Block]:
    """Of each run what trained and measured it."""
    blocks: list[Block] = []
    wanted = {table.measure for table in page.experiments.tables.values()} | {COST}
    for run, kept in page.kept.items():
        steps = [kept.training, *(each for name, each in kept.measures.items() if name in wanted)]
        commands = [str(each["command"]) for each in steps if each]
        if commands:
            blocks.append(Code(caption=run, text="\n".join(commands)))
    return blocks or [Said(text=f"{MISSING.capitalize()}.")]


def _has_something(block: Block) -> bool:
    """Whether a plot has points, and a table rows."""
    if isinstance(block, Plot):
        return any(_points(line) for line in block.lines)
    return not isinstance(block, Table) or bool(block.rows)


def _points(line: Line) -> bool:
    return len(line.x) > 0
