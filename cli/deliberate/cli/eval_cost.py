"""`deliberate eval --cost`: what latents cost beside the base alone.

runs, baselines --one prompt, in turn--> times, FLOPs, memory, bytes --> tables
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from deliberate.cli.eval_against import Against
from deliberate.cli.eval_shown import say
from deliberate.cli.eval_table import empty
from deliberate.cli.eval_tasks import COST
from deliberate.cli.models import patient_bars
from deliberate.cli.terminal import progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from deliberate.core.base import Base
    from deliberate.eval import Subject
    from deliberate.eval.cost import CostSetting

NOTHING = "-"
"""Stands where nothing can be measured."""

_UNITS = ("", " k", " M", " G", " T", " P", " E")


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """One prompt and one answer, timed."""

    against: Against
    setting: "CostSetting"

    @property
    def name(self) -> str:
        """What results call it."""
        return COST

    def settings(self) -> dict[str, Any]:
        """What was asked for, and how often."""
        return {**asdict(self.setting), "baselines": dict(self.against.baselines)}

    def measure(self, base: "Base", subjects: "Sequence[Subject]") -> dict[str, Any]:
        """Measure costs, all coprocessors and baselines in turn."""
        from deliberate.eval.cost import cost

        with patient_bars(), progress("timing", None) as advance:
            found = cost(
                base,
                subjects,
                self.setting,
                on_runs=lambda done, total: advance(1, total=total),
            )
        return found.to_dict()

    def show(self, result: dict[str, Any], runs: Sequence[str], base: str) -> None:
        """Show what latents cost."""
        _show(result, base)


def costs_named(said: Mapping[str, Any]) -> "CostSetting":
    """What options ask of costs.

    Args:
        said: The command's parameters.

    Raises:
        ValueError: one of the numbers is out of range.
    """
    from deliberate.eval.cost import CostSetting

    names = ("prompt_tokens", "decoded_tokens", "repeats")
    stated = {name: said[name] for name in names if said[name] is not None}
    return CostSetting(**stated, seed=said["seed"])


def _show(result: Mapping[str, Any], base: str) -> None:
    from rich.console import Console

    from deliberate.core.verdict import counted

    console = Console()
    title = f"{base}: time to the first token of an answer, and speed after it, least…most below"
    say(console, title, style="italic")
    console.print(_times(result["rows"]))
    say(console, "What else an answer takes:", style="italic")
    console.print(_sizes(result["rows"]))
    _show_by_number(console, result)
    say(
        console,
        f"{counted(result['repeats'], 'turn')} of a prompt of {result['prompt_tokens']:,} random "
        f"tokens, then {result['decoded_tokens']:,} more, in {result['dtype']} on "
        f"{result['device']} with {counted(result['threads'], 'CPU thread')}; peak: weights and "
        "what tensors hold besides.",
        style="dim italic",
    )


def _times(rows: Sequence[Mapping[str, Any]]) -> "Table":
    headings = ("from text\nms", "from cache\nms", "over base\nms", "tokens\na second")
    table = _table(headings)
    for row in rows:
        table.add_row(
            _heading(row),
            _spread(row["first_token_seconds"], 1e3),
            _spread(row["first_token_cached_seconds"], 1e3),
            _spread(row["extra_seconds"], 1e3),
            _spread(row["tokens_per_second"], 1),
        )
    return table


def _sizes(rows: Sequence[Mapping[str, Any]]) -> "Table":
    table = _table(("weights\ntrained", "extra\nFLOPs", "peak\nbytes", "cache file\n+ latents"))
    for row in rows:
        count = row["parameters"]
        table.add_row(
            _heading(row),
            f"{_short(count['total'])}\n{_short(count['trained'])}",
            _short(row["extra_flops"]),
            _bytes(row["peak_bytes"]),
            f"{_bytes(row['cache_bytes'])}\n+ {_bytes(row['latents_bytes'])}",
        )
    return table


def _show_by_number(console: "Console", result: Mapping[str, Any]) -> None:
    """Two tables of a row, a column each number."""
    first = "Time from cache to the first token"
    for key, what, heading in (
        ("by_latents", "latents", f"{first} by number of latents, first run's kind:"),
        ("chain_of_thought", "tokens", f"{first} when the base decodes so many before it:"),
    ):
        each = result[key]
        table = empty("")
        for one in each:
            table.add_column(f"{one[what]}", justify="right")
        table.add_row("ms", *(_spread(one["first_token_cached_seconds"], 1e3) for one in each))
        say(console, heading, style="italic")
        console.print(table)


def _table(headings: Sequence[str]) -> "Table":
    table = empty("")
    table.columns[0].justify = "left"
    for heading in headings:
        table.add_column(heading, justify="right", min_width=len("tokens"))
    return table


def _heading(row: Mapping[str, Any]) -> "Text":
    """A row's name, its run and its kind."""
    from rich.text import Text  # a run's name is no markup

    from deliberate.core.verdict import counted

    if row["run"] is None:
        return Text("base alone")
    count = counted(row["latents"], "latent") if row["latents"] else "no latents"
    return Text(f"{row['name']}: {row['run']}\n{row['kind']}, {count}")


def _spread(found: Mapping[str, float] | None, factor: float) -> str:
    if found is None:
        return NOTHING
    median, low, high = (_digits(factor * found[name]) for name in ("median", "low", "high"))
    return f"{median}\n{low}…{high}"


def _digits(value: float) -> str:
    """A number in few characters, three digits where it has no more before its point."""
    size = abs(value)
    return f"{value:,.{2 if size < 10 else 1 if size < 100 else 0}f}"


def _bytes(count: int) -> str:
    found = _short(count)
    return f"{found}B" if " " in found else f"{found} B"


def _short(count: int) -> str:
    """A whole number in three digits and a prefix of units of 1,000."""
    size, unit = float(count), 0
    while size >= 999.5 and unit + 1 < len(_UNITS):
        size, unit = size / 1000, unit + 1
    return f"{count}" if not unit else f"{size:.3g}{_UNITS[unit]}"
