"""`deliberate eval --problems`: made problems, answered by the base alone and with latents.

families, steps --questions, then models--> how many are solved, a table, what differs
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from deliberate.cli.eval_shown import say
from deliberate.cli.eval_table import SIDE_BY_SIDE, empty
from deliberate.cli.models import patient_bars
from deliberate.cli.terminal import progress

if TYPE_CHECKING:
    from rich.console import Console

    from deliberate.core.base import Base
    from deliberate.eval import Subject
    from deliberate.eval.accuracy import Accuracy
    from deliberate.eval.problem_set import ProblemSet

STEPS = "1-6"
COUNT = 100
ALL = "all"

NEARLY_NONE = 2.0
"""Percent solved below which a difference says little."""


@dataclass(frozen=True, slots=True)
class Problems:
    """What was said of problems on the command line."""

    families: str | None
    steps: str | None
    count: int | None

    @property
    def wanted(self) -> bool:
        """Whether problems are asked for.

        Raises:
            typer.BadParameter: an option is given that means nothing without them.
        """
        given = {"--steps": self.steps, "--count": self.count}
        named = [name for name, value in given.items() if value is not None]
        if self.families is None and named:
            raise typer.BadParameter(f"{named[0]} is for problems: add --problems all")
        return self.families is not None

    def check_alone(self, given: Mapping[str, object]) -> None:
        """See that nothing is said of texts, which are then not read.

        Args:
            given: What was said, by option; what was not said is false.

        Raises:
            ValueError: something is said of texts.
        """
        odd = [name for name, value in given.items() if value]
        if self.families is not None and odd:
            raise ValueError(f"--problems makes its own questions: leave out {', '.join(odd)}")

    def chosen(self, seed: int) -> "ProblemSet":
        """The problems.

        Args:
            seed: Of their draw.

        Raises:
            ValueError: a family is not known, or one of the numbers is out of range.
        """
        from deliberate.core.problems import FAMILIES
        from deliberate.eval.problem_set import ProblemSet

        named = [each.strip() for each in (self.families or ALL).split(",")]
        return ProblemSet(
            families=tuple(FAMILIES) if named == [ALL] else tuple(named),
            steps=_numbers(self.steps or STEPS),
            count=COUNT if self.count is None else self.count,
            seed=seed,
        )


def answered(base: "Base", subjects: "Sequence[Subject]", chosen: "ProblemSet") -> "list[Accuracy]":
    """Have the problems answered, each coprocessor in turn.

    Args:
        base: The frozen model.
        subjects: The coprocessors, and what each is compared with.
        chosen: The problems.
    """
    from deliberate.eval.accuracy import ask_problems

    found = []
    with patient_bars(), progress("answering problems", None) as advance:
        for number, subject in enumerate(subjects):
            count = _counting(advance, number, len(subjects))
            found.append(ask_problems(base, subject, chosen, on_problems=count))
    return found


def show_problems(accuracy: "Accuracy", run: str) -> None:
    """Show how many problems were solved, and what differs."""
    from rich.console import Console

    from deliberate.core.verdict import columns

    result = accuracy.to_dict()
    total = result["total"]
    words = columns({**result, "change_percent": total["against_base"]}, other="question")
    console = Console()
    title = f"{run} for {accuracy.base.id}: percent of problems solved, answers decoded greedily"
    say(console, title, style="italic")
    names = list(words)
    for first in range(0, len(names), SIDE_BY_SIDE):
        some = {name: words[name] for name in names[first : first + SIDE_BY_SIDE]}
        _show_table(console, result, {"base": "base\nalone", **some})
    said = (
        f"{result['problems']:,} held-out problems, at most {result['count']} of a family and steps"
    )
    say(console, f"{said}. Each family's and the total's 95 % interval from resampling problems.")
    for name, chain in result.get("chains", {}).items():
        say(console, f"{words[name].capitalize()}: {_chain(chain)}.", style="dim italic")
    for name, heading in words.items():
        say(console, f"{heading} against the base: {_said(total['against_base'][name])}.")
    for name, found in total["latents_against"].items():
        say(console, f"latents against {words[name]}: {_said(found)}.")
    if max(total["percent"][name]["value"] for name in ("base", "latents")) < NEARLY_NONE:
        say(
            console,
            f"Fewer than {NEARLY_NONE:g} % are solved, with or without latents: problems so hard "
            "for the base tell next to nothing of the latents.",
        )


def _show_table(console: "Console", result: dict[str, Any], names: Mapping[str, str]) -> None:
    from rich.text import Text

    table = empty("family")
    table.leading = 0
    table.add_column("steps", justify="right", min_width=len("steps"))
    for heading in names.values():
        table.add_column(Text(heading), justify="right", min_width=len("10.0…20.0"))
    cells = [
        (family, steps, cell)
        for family, rows in result["families"].items()
        for steps, cell in rows.items()
    ]
    for family, steps, cell in [*cells, ("all", "all", result["total"])]:
        found = [_share(cell["percent"][name], whole=steps == "all") for name in names]
        table.add_row(family if steps == "all" else "", steps, *found)
    console.print(table)


def _share(share: Mapping[str, float], *, whole: bool) -> str:
    interval = f"\n{share['low']:.1f}…{share['high']:.1f}" if whole else ""
    return f"{share['value']:.1f}{interval}"


def _said(found: Mapping[str, Any]) -> str:
    return (
        f"{found['value']:+.2f} points ({found['low']:+.2f}…{found['high']:+.2f}), "
        f"{found['gained']} gained and {found['lost']} lost, p = {found['p']:.2g} (McNemar)"
    )


def _chain(chain: Mapping[str, Any]) -> str:
    """What a chain of thought was."""
    time, words = "", chain["cue"].strip()
    cue = f" and {words!r}" if words else ""
    if "latency" in chain:
        took = {name: 1000 * seconds for name, seconds in chain["latency"].items()}
        time = (
            f"on this machine latents take {took['latents_seconds']:.1f} ms and a token "
            f"{took['token_seconds']:.1f} ms; "
        )
    return (
        f"{time}the cue is a line end{cue}, then {chain['answer_cue']!r}; on "
        f"average {chain['decoded_tokens']:.1f} tokens decoded, {chain['extra_tokens']:.1f} with "
        "both cues"
    )


def _numbers(said: str) -> tuple[int, ...]:
    """`1-6`, `3` or `1,2,4`.

    Raises:
        ValueError: it is none of these.
    """
    first, dash, last = said.partition("-")
    try:
        if dash:
            found = tuple(range(int(first), int(last) + 1))
        else:
            found = tuple(int(each) for each in said.split(","))
    except ValueError:
        found = ()
    if not found:
        raise ValueError(f"steps must be like 1-6, 3 or 1,2,4, got {said!r}")
    return found


def _counting(
    advance: Callable[..., None], number: int, subjects: int
) -> Callable[[int, int], None]:
    """Moves the bar on by how many more problems are done, of all coprocessors' together."""
    before = 0

    def count(done: int, total: int) -> None:
        nonlocal before
        advance(done - before, total=total * subjects)
        before = done

    return count
