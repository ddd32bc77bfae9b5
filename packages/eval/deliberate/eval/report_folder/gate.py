"""When to ask for latents: the gain that is kept if they are asked for only where it pays.

a gate's curve --> Plot, Table; nothing where none was measured
"""

from collections.abc import Iterator, Mapping
from typing import Any

from deliberate.eval.report_folder.blocks import Cell, Line, Plot, Said, Section, Table
from deliberate.eval.report_folder.numbers import NONE, count, plain, share, signed
from deliberate.eval.report_folder.words import runs_of, titled


def gate(results: Mapping[str, Any]) -> list[Section]:
    """The section of the gate."""
    found = [
        (name, report["gate"])
        for name, report in runs_of(results, "perplexity")
        if report.get("gate") and report["gate"].get("tokens")
    ]
    said, plots, tables = [], [], []
    for number, (name, each) in enumerate(found):
        run = name if len(results["runs"]) > 1 else ""
        file = f"gate-{number + 1}" if len(found) > 1 else "gate"
        untold = [what for what, token in _tokens(each) if not token.get("kept")]
        if untold:
            text = f"No gain that can be told at {' and '.join(untold)}, so no curve is drawn."
            said.append(Said(text=text, run=run))
        if len(untold) < len(list(_tokens(each))):
            plots.append(_plot(file, run, each))
            tables.append(_table(run, each))
    blocks = [*said, *plots, *tables]
    return [Section(name="gate", heading="When to ask for latents", blocks=blocks)]


def _tokens(found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for token, each in found["tokens"].items():
        if each:
            yield "all tokens ahead" if token == "all" else f"token {token}", each


def _plot(name: str, run: str, found: Mapping[str, Any]) -> Plot:
    lines = []
    for number, (what, each) in enumerate(_tokens(found)):
        if not each.get("kept"):
            continue
        curve = [
            point
            for point in each.get("curve") or []
            if point.get("calls_percent") is not None and point.get("gain_percent") is not None
        ]
        lines.append(
            Line(
                label=what,
                x=[point["calls_percent"] for point in curve],
                y=[point["gain_percent"] for point in curve],
                style=number + (number > 0),
            )
        )
    return Plot(
        name=name,
        title=titled(run, f"gain kept, asking by the {found.get('signal', 'signal')}"),
        x_label="Anchors that ask for latents, %",
        y_label="Gain kept, %",
        lines=lines,
        diagonal="asking at random",
    )


def _table(run: str, found: Mapping[str, Any]) -> Table:
    unit = found.get("unit") or ""
    rows = []
    for what, each in _tokens(found):
        kept = each.get("kept") or {}
        rows.append([
            Cell(text=what),
            Cell(text=f"{signed(each.get('gain_nats'), places=4)} nats"),
            Cell(
                text=f"{plain(kept['threshold'])} {unit}"
                if kept.get("threshold") is not None
                else NONE
            ),
            share(kept.get("calls_percent")),
            share(kept.get("gain_percent")),
            Cell(text=f"{count(kept.get('chosen_on'))} / {count(kept.get('checked_on'))}"),
        ])
    wanted = next(
        (
            kept["share_percent"]
            for _, each in _tokens(found)
            if (kept := each.get("kept")) and kept.get("share_percent") is not None
        ),
        None,
    )
    goal = f" that keeps {plain(wanted, places=0)} % of the gain" if wanted is not None else ""
    return Table(
        caption=titled(run, f"the threshold{goal}, chosen on some texts, checked on others"),
        head=["", "Gain, always asking", "Threshold", "Asks", "Keeps", "Chosen / checked on"],
        rows=rows,
        note="The base's own uncertainty at the anchor decides. On the diagonal of the plot a gate "
        "is no better than asking as often at random.",
    )
