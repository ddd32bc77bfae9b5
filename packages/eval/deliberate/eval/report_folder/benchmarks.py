"""Benchmarks: the base and the base with latents on the same questions, and a paired test."""

from collections.abc import Mapping
from typing import Any

from deliberate.eval.bench.mcnemar import FEWEST_TO_TELL, LEVEL
from deliberate.eval.report_folder.blocks import Block, Cell, Said, Section, Table
from deliberate.eval.report_folder.numbers import NONE, count, known, p_value, plain, signed

CONDITIONS = {"base": "base alone", "latents": "with latents"}
"""Who read a prompt, in words."""


def benchmarks(results: Mapping[str, Any]) -> list[Section]:
    """The section of benchmarks."""
    found = results["tasks"].get("bench", {}).get("result") or {}
    blocks: list[Block] = []
    if found.get("sets"):
        blocks.append(_table(found["sets"]))
        blocks += _cut(found["sets"])
    if found.get("left_out"):
        left = "; ".join(f"{name}: {reason}" for name, reason in found["left_out"].items())
        blocks.append(Said(text=f"Left out: {left}.", quiet=True))
    return [Section(name="benchmarks", heading="Benchmarks", blocks=blocks)]


def too_few(sets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The sets of so few questions that the test can never tell a difference."""
    asked = {name: each.get("questions") for name, each in sets.items()}
    return [name for name, number in asked.items() if known(number) and number < FEWEST_TO_TELL]


def side(found: Mapping[str, Any]) -> str:
    """`better` or `worse` with latents where the test tells a difference, else nothing."""
    p, difference = found.get("p"), found.get("difference")
    if not (known(p) and known(difference)) or p >= LEVEL or difference == 0:
        return ""
    return "better" if difference > 0 else "worse"


def _table(sets: Mapping[str, Mapping[str, Any]]) -> Table:
    return Table(
        caption="Benchmarks, through lm-evaluation-harness",
        head=[
            "Benchmark",
            "Score",
            "Shots",
            "Questions",
            "Base",
            "With latents",
            "Difference",
            "Gained",
            "Lost",
            "p (McNemar)",
        ],
        rows=[_row(name, each) for name, each in sets.items()],
        note="In percent. Gained: questions that only the base with latents gets right. Lost: that "
        f"only the base alone does. Bold: p below {LEVEL:g}; no correction for their number.",
    )


def _cut(sets: Mapping[str, Mapping[str, Any]]) -> list[Said]:
    """What to say of prompts that lost their beginning, if any did."""
    found = [
        f"{name}, {CONDITIONS.get(condition, condition)}: {count(number)}"
        for name, each in sets.items()
        for condition, number in (each.get("cut") or {}).items()
        if number
    ]
    if not found:
        return []
    text = f"Prompts longer than the base reads, which lost their beginning: {'; '.join(found)}."
    return [Said(text=text)]


def _row(name: str, found: Mapping[str, Any]) -> list[Cell]:
    return [
        Cell(text=name),
        Cell(text=str(found.get("score", NONE))),
        *(Cell(text=count(found.get(key))) for key in ("shots", "questions")),
        *(Cell(text=plain(found.get(key))) for key in ("base", "latents")),
        Cell(text=signed(found.get("difference")), tone=side(found)),
        *(Cell(text=count(found.get(key))) for key in ("gained", "lost")),
        Cell(text=p_value(found.get("p"))),
    ]
