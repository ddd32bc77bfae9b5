"""How it was measured: what measures, where, when, of which weights, with which settings."""

import json
from collections.abc import Mapping
from typing import Any

from deliberate.eval.report_folder.blocks import Block, Cell, Code, Section, Table
from deliberate.eval.report_folder.numbers import NONE, count, seconds


def measured(results: Mapping[str, Any]) -> list[Section]:
    """The section of how it was measured."""
    blocks: list[Block] = [_models(results), _made(results["made"])]
    if results["made"].get("command"):
        blocks.append(Code(caption="Command", text=str(results["made"]["command"])))
    if results["tasks"]:
        blocks.append(_tasks(results["tasks"]))
    blocks += [
        Code(caption=f"Settings of {name}", text=_json(task.get("settings")))
        for name, task in results["tasks"].items()
        if task.get("settings")
    ]
    blocks += [
        Code(caption=f"Setting of {run['name']}", text=_json(run["setting"]))
        for run in results["runs"]
        if run.get("setting")
    ]
    return [Section(name="measured", heading="How it was measured", blocks=blocks)]


def _models(results: Mapping[str, Any]) -> Table:
    base = results["base"]
    rows = [
        [
            Cell(text=str(base["id"])),
            Cell(text="base, frozen"),
            Cell(text=NONE),
            Cell(text=count(base.get("parameters"))),
            Cell(text=str(base["id"])),
            Cell(text=str(base["fingerprint"])),
        ]
    ]
    rows += [
        [
            Cell(text=str(run["name"])),
            Cell(text=str(run["kind"])),
            Cell(text=count(run["latents"])),
            Cell(text=count(run.get("parameters"))),
            Cell(text=str(run["id"])),
            Cell(text=str(run["fingerprint"])),
        ]
        for run in results["runs"]
    ]
    return Table(
        caption="The base and the runs",
        head=["", "Kind", "Latents", "Parameters", "From", "Fingerprint"],
        rows=rows,
    )


NAMES = {
    "machine": "Machine",
    "deliberate": "deliberate",
    "commit": "Commit",
    "torch": "torch",
    "transformers": "transformers",
    "python": "Python",
}


def _made(made: Mapping[str, Any]) -> Table:
    return Table(
        caption="Machine and versions",
        head=["What", "Which"],
        rows=[
            [Cell(text=name), Cell(text=str(made[key]))]
            for key, name in NAMES.items()
            if made.get(key)
        ],
    )


def _tasks(tasks: Mapping[str, Mapping[str, Any]]) -> Table:
    earlier = {name: task["made"] for name, task in tasks.items() if task.get("made")}
    rows = []
    for name, task in tasks.items():
        when = [
            Cell(text=str(task.get("finished", NONE))),
            Cell(text=seconds(task.get("seconds")).text),
        ]
        by = earlier.get(name, {})
        said = ", ".join(str(by[key]) for key in ("machine", "deliberate", "commit") if by.get(key))
        rows.append([Cell(text=name), *when, *([Cell(text=said or "the same")] if earlier else [])])
    return Table(
        caption="What was measured, and when",
        head=["Task", "Finished", "Took", *(["Measured by"] if earlier else [])],
        rows=rows,
        note="Tasks that an earlier command measured are kept as they were." if earlier else "",
    )


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
