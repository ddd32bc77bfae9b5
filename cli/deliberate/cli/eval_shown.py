"""What `deliberate eval` says on a terminal of what it measured.

a result --> its table, a verdict, settings; several --> one table with a column each
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from deliberate.cli.eval_table import Column, compact, conditions, is_factor, tables

if TYPE_CHECKING:
    from rich.console import Console


def show(result: dict[str, Any], run: str, base: str) -> None:
    """Show what was measured of one run.

    Args:
        result: Plain values of its report.
        run: Its name.
        base: The base's.
    """
    from rich.console import Console

    from deliberate.core.verdict import verdict

    console = Console()
    _say_title(console, f"{run} for {base}", result)
    for table in tables(result["perplexity"]["base"], conditions(result)):
        console.print(table)
    say(console, caption(result), style="dim italic")
    say(console, verdict(result))
    if result["gate"]:
        say(console, gate_sentence(result["gate"]))
    _show_delays_and_domains(console, result)
    _say_settings(console, result)
    counts = ", ".join(f"{name} {count:,}" for name, count in result["parameters"].items())
    prints = ", ".join(f"{name} {value}" for name, value in result["fingerprints"].items())
    say(console, f"Parameters: {counts}.")
    say(console, f"Fingerprints: {prints}.")


def show_together(results: Sequence[dict[str, Any]], runs: Sequence[str], base: str) -> None:
    """Show what was measured of several runs on the same passages: a column each.

    Args:
        results: Plain values of their reports.
        runs: Their names.
        base: The base's.
    """
    from rich.console import Console

    from deliberate.core.verdict import counted, verdict, writes_latents

    console = Console()
    _say_title(console, f"{len(runs)} runs for {base}", results[0])
    columns = []
    for run, result in zip(runs, results, strict=True):
        setting = result["setting"]
        count = setting["latents"]
        what = counted(count, "latent") if writes_latents(result) else "no latents"
        columns.append(
            Column(
                heading=f"{run}: {setting['kind']}, {what}",
                perplexity=result["perplexity"]["latents"],
                changes=result["change_percent"]["latents"],
            )
        )
    for table in tables(results[0]["perplexity"]["base"], columns):
        console.print(table)
    say(console, caption(results[0]), style="dim italic")
    for run, result in zip(runs, results, strict=True):
        say(console, f"{run}: {verdict(result)}")
        _show_delays_and_domains(console, result)
    if any(len(result["change_percent"]) > 1 or result["gate"] for result in results):
        hint = (
            "What else each run was compared with, and its gate: --json, or -o FOLDER for a report."
        )
        say(console, hint, style="dim italic")


def _say_title(console: "Console", what: str, result: dict[str, Any]) -> None:
    from deliberate.core.verdict import arrival

    title = f"{what}: perplexity by token after the anchor{arrival(result)}"
    say(console, title, style="italic")


def say(console: "Console", text: str, *, style: str = "") -> None:
    """Print a paragraph without the spaces that rich leaves at the ends of lines."""
    lines = textwrap.wrap(text, console.width, break_long_words=False, break_on_hyphens=False)
    for line in lines:
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)


def caption(result: dict[str, Any]) -> str:
    """What a report's table shows, and what it was measured on."""
    from deliberate.core.verdict import counted

    passage = (
        "; another passage's latents, for lack of other texts to take them from"
        if result["shuffled_from"] == "passage"
        else ""
    )
    cells = [change for row in result["change_percent"].values() for change in row.values()]
    factor = "x: times the base's perplexity. " if any(map(is_factor, cells)) else ""
    return (
        f"Each cell: perplexity, its change, and the change's 95 % interval from resampling each "
        f"{result['resampled']}. {factor}{counted(result['anchors'], 'anchor')} in "
        f"{counted(result['passages'], 'passage')} of at most {result['length']} tokens, "
        f"{counted(result['documents'], 'document')} of {result['data']}{passage}"
    )


def gate_sentence(gate: dict[str, Any]) -> str:
    """What asking only where the base is unsure would keep of the gain, at token 1 and in all."""
    sentences = []
    for name, words in (("1", "at token 1"), ("all", "over all tokens ahead")):
        kept = gate["tokens"][name]["kept"]
        if kept is None:
            sentences.append(f"no gain {words} that can be told, so none to keep a share of.")
            continue
        calls, gain = kept["calls_percent"], kept["gain_percent"]
        sentences.append(
            f"asking only where the next token's entropy is at least {kept['threshold']:.2f} nats "
            f"({calls['value']:.0f} % of anchors) keeps {gain['value']:.0f} % "
            f"({gain['low']:.0f}…{gain['high']:.0f}) of the gain {words}."
        )
    return " ".join(["Gate:", sentences[0], sentences[1][:1].upper() + sentences[1][1:]])


def _show_delays_and_domains(console: "Console", result: dict[str, Any]) -> None:
    """Show the change at each delay and in each domain, where there are several."""
    if "delays" in result:
        rows = {name: each["change_percent"]["latents"] for name, each in result["delays"].items()}
        say(console, "Change with latents that arrive some tokens late:", style="italic")
        for table in compact("late by", rows):
            console.print(table)
    if "domains" in result:
        _show_domains(console, result["domains"])


def _show_domains(console: "Console", domains: dict[str, Any]) -> None:
    from deliberate.core.verdict import FEWEST_UNITS, counted

    say(console, "Change with latents by domain:", style="italic")
    units = {name: each[f"{each['resampled']}s"] for name, each in domains.items()}
    rows = {
        f"{name}\n{counted(units[name], each['resampled'])}": each["change_percent"]["latents"]
        for name, each in domains.items()
    }
    for table in compact("domain", rows):
        console.print(table)
    if min(units.values()) < FEWEST_UNITS:
        few = ", ".join(name for name, count in units.items() if count < FEWEST_UNITS)
        say(console, f"Fewer than {FEWEST_UNITS}, and intervals not to be believed: {few}.")


def _say_settings(console: "Console", result: dict[str, Any]) -> None:
    from deliberate.core.verdict import counted, writes_latents

    setting = result["setting"]
    if not writes_latents(result):
        say(console, f"No latents, kind {setting['kind']!r}.")
        return
    say(
        console,
        f"{counted(setting['latents'], 'latent')}, kind {setting['kind']!r}: "
        f"soft_input {setting['soft_input']}, latent_norm {setting['latent_norm']}, "
        f"latent_scale {setting['latent_scale']:g}, positions {setting['positions']}.",
    )
