"""What a report says, in its order.

results --> Heading, Sections; a task that was not measured has none
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deliberate.core.verdict import counted
from deliberate.eval.report_folder.benchmarks import benchmarks
from deliberate.eval.report_folder.blocks import Plot, Section
from deliberate.eval.report_folder.cost import cost
from deliberate.eval.report_folder.examples import examples
from deliberate.eval.report_folder.gate import gate
from deliberate.eval.report_folder.measured import measured
from deliberate.eval.report_folder.numbers import count
from deliberate.eval.report_folder.perplexity import perplexity
from deliberate.eval.report_folder.problems import problems
from deliberate.eval.report_folder.summary import summary
from deliberate.eval.report_folder.tradeoff import tradeoff

PARTS = (summary, perplexity, problems, gate, tradeoff, cost, benchmarks, examples, measured)
"""Each makes the sections of one subject, or none."""


MOST_NAMED = 4
"""Runs that the heading names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """What a report begins with."""

    title: str
    """The runs."""

    lead: str
    """What they are, and of which base."""


def heading(results: Mapping[str, Any]) -> Heading:
    """What the report is of."""
    runs, base = results["runs"], results["base"]
    names = [str(run["name"]) for run in runs]
    few = names if len(names) <= MOST_NAMED else [*names[:MOST_NAMED], "…"]
    what = f"{len(runs)} coprocessors"
    if len(runs) == 1:
        [run] = runs
        latents = counted(run["latents"], "latent") if run["latents"] else "no latents"
        what = f"kind {run['kind']}, {latents}, {count(run.get('parameters'))} parameters"
    of = f"{base['id']} ({count(base.get('parameters'))} parameters, frozen)"
    return Heading(title=", ".join(few), lead=f"{what}; for {of}")


def sections(results: Mapping[str, Any]) -> Sequence[Section]:
    """Everything that there is to say.

    Args:
        results: As `results.json` holds them.
    """
    found = []
    for section in (section for part in PARTS for section in part(results)):
        blocks = [
            block
            for block in section.blocks
            if not isinstance(block, Plot) or any(line.x for line in block.lines)
        ]
        if blocks:
            found.append(Section(name=section.name, heading=section.heading, blocks=blocks))
    return found
