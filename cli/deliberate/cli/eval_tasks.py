"""What one run of `deliberate eval` measures: tasks, and which options each of them takes.

options --> tasks --base, subjects--> plain values, task by task, which are shown and kept
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import typer

from deliberate.cli.eval_against import Against, parsed
from deliberate.cli.eval_names import (
    LIMITS,
    check_benchmarks,
    check_number,
    delays,
    steps,
)
from deliberate.cli.eval_own import COLUMNS, check_problems, own_named

if TYPE_CHECKING:
    from deliberate.core.base import Base
    from deliberate.eval import Subject

PERPLEXITY, PROBLEMS, COST, BENCH = "perplexity", "problems", "cost", "bench"


class Task(Protocol):
    """One thing to be measured."""

    @property
    def name(self) -> str:
        """What results call it."""
        ...

    @property
    def against(self) -> Against:
        """What the latents are compared with."""
        ...

    def settings(self) -> dict[str, Any]:
        """What has to be the same for a result to be kept in place of measuring again."""
        ...

    def measure(self, base: "Base", subjects: "Sequence[Subject]") -> Any:
        """Measure, and give plain values: of each run in turn, or of all together."""
        ...

    def show(self, result: Any, runs: Sequence[str], base: str) -> None:
        """Show on a terminal what was measured."""
        ...


_OPTIONS = {
    PERPLEXITY: (
        "data", "skip_bad", "field", *COLUMNS, "domain", "delay", "texts", "anchors",
        "every_token", "ahead", "length",
    ),
    PROBLEMS: ("steps", "count", "shots"),
    COST: ("prompt_tokens", "decoded_tokens", "repeats"),
    BENCH: ("bench_data", "bench_limit", "run_generated_code", "batch"),
}  # fmt: skip
"""Options that mean something to one task alone."""

_ASKS_FOR = {
    PERPLEXITY: "perplexity",
    PROBLEMS: "problems: add --problems all",
    COST: "costs: add --cost",
    BENCH: "benchmarks: add --bench NAMES",
}

_INSTEAD = {
    PROBLEMS: "--problems makes its own questions",
    COST: "--cost reads tokens drawn at random",
    BENCH: "--bench asks the benchmarks' own questions",
}
"""Why a task has no use for texts."""


_NOTHING_TO = {BENCH: ("against", "soft", "seed")}
"""Options that mean something to every other task."""


def check_options(context: typer.Context, tasks: Iterable[str]) -> None:
    """See that every option that was given means something to a task that is measured.

    Args:
        context: Knows what was given.
        tasks: Their names.

    Raises:
        typer.BadParameter: one does not.
    """
    wanted, own = list(tasks), own_named(context.params["problems"])
    vain = [
        _flag(name) for task in wanted for name in _NOTHING_TO.get(task, ()) if given(context, name)
    ]
    if vain:
        raise typer.BadParameter(f"{_INSTEAD[wanted[0]]}: leave out {', '.join(vain)}")
    for owner, options in _OPTIONS.items():
        useful = COLUMNS if own else ()
        odd = [_flag(name) for name in options if given(context, name) and name not in useful]
        if not odd or owner in wanted:
            continue
        if owner == PERPLEXITY:
            instead = f"--problems asks what {own[0]!r} holds" if own else _INSTEAD[wanted[0]]
            raise typer.BadParameter(f"{instead}: leave out {', '.join(odd)}")
        raise typer.BadParameter(f"{odd[0]} is for {_ASKS_FOR[owner]}")


def check_values(said: Mapping[str, Any]) -> None:
    """See that what options say is known and in range, before what is to do with it is imported.

    Args:
        said: The command's parameters.

    Raises:
        FileNotFoundError: what may hold questions is nowhere.
        ValueError: a name is not known, or a number is none or out of range.
    """
    checks = {
        "against": parsed,
        "problems": check_problems,
        "steps": steps,
        "delay": delays,
        "bench": check_benchmarks,
    }
    for name, check in checks.items():
        if said[name] is not None:
            check(said[name])
    for name in LIMITS:
        if said[name] is not None:
            check_number(name, said[name])


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def given(context: typer.Context, name: str) -> bool:
    """Whether an option was on the command line.

    Args:
        context: Knows.
        name: The parameter's.
    """
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def as_object(found: Any, runs: Sequence[str]) -> dict[str, Any]:
    """What a task came to as one JSON object; of several runs, a list in it.

    Texts that a report quotes are left out: what is printed may go anywhere.

    Args:
        found: Of each run in turn, or of all together.
        runs: Their names.
    """
    if isinstance(found, Mapping):
        return dict(found)
    each = [{key: one for key, one in result.items() if key != "examples"} for result in found]
    if len(runs) == 1:
        return each[0]
    return {"results": [{"run": run, **one} for run, one in zip(runs, each, strict=True)]}
