"""What latents cost: a table, and the time to the first token by how many there are."""

from collections.abc import Mapping, Sequence
from typing import Any

from deliberate.core.kinds import KINDS
from deliberate.core.verdict import counted
from deliberate.eval.report_folder.blocks import Block, Cell, Line, Plot, Section, Table
from deliberate.eval.report_folder.numbers import (
    count,
    flops,
    known,
    rate,
    seconds,
    size,
)

CACHED = "first_token_cached_seconds"

SOFT = "soft"

EXTREMES = "from the least to the most"
"""What stands beside a median time: the two ends of the repeats, which are no interval."""


def cost(results: Mapping[str, Any]) -> list[Section]:
    """The section of cost."""
    found = result(results)
    blocks: list[Block] = []
    if found.get("by_latents"):
        blocks.append(_plot(found))
    if found.get("rows"):
        blocks += [_times(found), _sizes(found["rows"])]
    return [Section(name="cost", heading="What it costs", blocks=blocks)]


def result(results: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was measured of cost; empty if it was not."""
    return results["tasks"].get("cost", {}).get("result") or {}


def row_of(results: Mapping[str, Any], run: str) -> Mapping[str, Any] | None:
    """The row of a run's latents, by the run's name or its id."""
    ids = {each.get("id") for each in results["runs"] if each["name"] == run}
    rows = [row for row in result(results).get("rows") or [] if row.get("name") == "latents"]
    return next((row for row in rows if row.get("run") in {run, *ids} - {None}), None)


def extra_first_token(results: Mapping[str, Any], run: str) -> Cell | None:
    """How much longer the first token takes with a run's latents; none if it was not measured."""
    row = row_of(results, run)
    found = row.get("extra_seconds") if row else None
    return seconds(found) if found and known(found.get("median")) else None


def _times(found: Mapping[str, Any]) -> Table:
    tokens = found.get("prompt_tokens")
    return Table(
        caption="Time",
        head=[
            "",
            "First token",
            "First token, prompt cached",
            "Extra for latents",
            "Tokens a second",
        ],
        rows=[
            [
                Cell(text=_called(row)),
                seconds(row.get("first_token_seconds")),
                seconds(row.get(CACHED)),
                seconds(row.get("extra_seconds")),
                rate(row.get("tokens_per_second")),
            ]
            for row in found["rows"]
        ],
        note=f"Medians, and {EXTREMES}, of {_number(found.get('repeats'), 'repeat')}, after "
        f"a prompt of {count(tokens)} tokens, {count(found.get('decoded_tokens'))} tokens decoded; "
        f"{found.get('device')}, {found.get('dtype')}, {_number(found.get('threads'), 'thread')}.",
    )


def _sizes(rows: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        caption="Parameters, arithmetic and memory",
        head=[
            "",
            "Parameters",
            "Trained",
            "Extra arithmetic",
            "Peak memory",
            "Cache",
            "Latents on disk",
        ],
        rows=[
            [
                Cell(text=_called(row)),
                *(
                    Cell(text=count((row.get("parameters") or {}).get(key)))
                    for key in ("total", "trained")
                ),
                Cell(text=flops(row.get("extra_flops"))),
                *(Cell(text=size(row.get(f"{key}_bytes"))) for key in ("peak", "cache", "latents")),
            ]
            for row in rows
        ],
    )


def _called(row: Mapping[str, Any]) -> str:
    """A row's name, its run, its kind and how many latents it writes."""
    if is_base(row):
        return "base alone"
    latents, soft = row.get("latents"), row.get("name") == SOFT
    many = counted(latents, "soft token" if soft else "latent") if latents else "no latents"
    kind = row.get("kind") if row.get("kind") != row.get("name") else None
    what = ", ".join([str(kind), many] if kind else [many])
    name = KINDS[SOFT].baseline if soft else row.get("name")
    return f"{name}: {row.get('run')} ({what})"


def _number(number: object, what: str) -> str:
    return counted(number, what) if isinstance(number, int) else f"{count(number)} {what}s"


def _plot(found: Mapping[str, Any]) -> Plot:
    rows = [("latents", "latents", found["by_latents"], 0)]
    if found.get("chain_of_thought"):
        rows.append(("tokens of chain of thought", "tokens", found["chain_of_thought"], 2))
    lines = [line for label, key, each, style in rows if (line := _line(label, key, each, style)).x]
    rival = ", or tokens of chain of thought" if len(lines) > 1 else ""
    return Plot(
        name="latency",
        title="Time to the first token of the answer, prompt cached",
        x_label=f"Latents{rival}",
        y_label="Milliseconds",
        note=f"Medians, and {EXTREMES} of the repeats.",
        lines=lines,
        ticks=sorted({x for line in lines for x in line.x}),
        doubling=all(x > 0 for line in lines for x in line.x),
    )


def _line(label: str, key: str, rows: Sequence[Mapping[str, Any]], style: int) -> Line:
    points = [
        (float(row[key]), row[CACHED])
        for row in rows
        if known(row.get(key)) and row.get(CACHED) and known(row[CACHED].get("median"))
    ]
    bounded = all(known(time.get("low")) and known(time.get("high")) for _, time in points)
    return Line(
        label=label,
        x=[x for x, _ in points],
        y=[1000 * time["median"] for _, time in points],
        low=[1000 * time["low"] for _, time in points] if bounded else [],
        high=[1000 * time["high"] for _, time in points] if bounded else [],
        style=style,
    )


def is_base(row: Mapping[str, Any]) -> bool:
    """Whether a row is of the base alone."""
    return row.get("run") is None and row.get("kind") is None


def base_row(results: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The row of the base alone."""
    rows = result(results).get("rows") or []
    return next((row for row in rows if is_base(row)), None)
