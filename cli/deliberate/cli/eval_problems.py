"""`deliberate eval --problems`: problems, answered by the base alone and with latents.

families, steps | files --questions, then models--> how many are solved, a table, what differs
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from deliberate.cli.eval_against import Against
from deliberate.cli.eval_names import ALL, families, steps
from deliberate.cli.eval_own import COLUMNS, own_named
from deliberate.cli.eval_shown import say
from deliberate.cli.eval_table import SIDE_BY_SIDE, empty
from deliberate.cli.eval_tasks import PROBLEMS
from deliberate.cli.eval_texts import state_of
from deliberate.cli.models import patient_bars
from deliberate.cli.terminal import harmless, note, progress

if TYPE_CHECKING:
    from rich.console import Console

    from deliberate.core.base import Base
    from deliberate.core.pairs import PairFormat
    from deliberate.eval import Subject
    from deliberate.eval.own_problems import OwnProblems
    from deliberate.eval.problem_set import ProblemSet

STEPS = "1-6"
COUNT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Problems:
    """Problems, and what their answers with latents are compared with."""

    against: Against
    chosen: "ProblemSet | OwnProblems"

    files: tuple[str, ...] = ()
    """Where the problems are read from, if they are not made."""

    @property
    def name(self) -> str:
        """What results call it."""
        return PROBLEMS

    def settings(self) -> dict[str, Any]:
        """What was asked for."""
        states = {"data_state": [*map(state_of, self.files)]} if self.files else {}
        return {**asdict(self.chosen), **states, "against": asdict(self.against)}

    def measure(self, base: "Base", subjects: "Sequence[Subject]") -> list[dict[str, Any]]:
        """Have the problems answered, each coprocessor in turn."""
        from deliberate.eval.accuracy import ask_problems

        found = []
        with patient_bars(), progress("answering problems", None) as advance:
            for number, subject in enumerate(subjects):
                count = _counting(advance, number, len(subjects))
                found.append(
                    ask_problems(base, subject, self.chosen, on_problems=count, on_note=note)
                )
        return [accuracy.to_dict() for accuracy in found]

    def show(self, result: list[dict[str, Any]], runs: Sequence[str], base: str) -> None:
        """Show how many problems were solved, and what differs."""
        for each, run in zip(result, runs, strict=True):
            _show(each, run, base)


def problems_named(said: Mapping[str, Any], *, against: Against, run: str) -> Problems:
    """The problems that options name; those of files are read, so that they are known to be there.

    Args:
        said: The command's parameters.
        against: What answers with latents are compared with.
        run: Whose columns and template they are where none are named.

    Raises:
        DeliberateError: files cannot be read, or are no questions and answers.
        ValueError: a family is not known, the template has no place for a question, or one of the
            numbers is out of range.
    """
    from deliberate.eval.own_problems import OwnProblems
    from deliberate.eval.problem_set import ProblemSet

    files = own_named(said["problems"])
    if not files:
        made = ProblemSet(
            families=families(said["problems"] or ALL),
            steps=steps(said["steps"] or STEPS),
            count=COUNT if said["count"] is None else said["count"],
            shots=said["shots"] or 0,
            seed=said["seed"],
        )
        return Problems(against=against, chosen=made)
    own = OwnProblems(sources=files, form=_form(said, run), count=said["count"], seed=said["seed"])
    with patient_bars():
        own.problems()
    return Problems(against=against, chosen=own, files=files)


def _form(said: Mapping[str, Any], run: str) -> "PairFormat":
    """Columns, template and separator: each as an option says, else as the run learned pairs."""
    from deliberate.core.checkpoint import find_coprocessor, read_config
    from deliberate.core.pairs import PairFormat

    recipe = read_config(find_coprocessor(run)).get("recipe") or {}
    learned = PairFormat.of(recipe.get("data", {}))
    values = {"question": "question", "answer": "answer"} if learned is None else asdict(learned)
    named = {name: said[name] for name in COLUMNS if said[name] is not None}
    return PairFormat(**{**values, **named})


def _show(result: dict[str, Any], run: str, base: str) -> None:
    from rich.console import Console

    from deliberate.core.verdict import columns, counted, own_questions

    total = result["total"]
    words = columns({**result, "change_percent": total["against_base"]}, other="question")
    console = Console()
    title = f"{run} for {base}: percent of problems solved, answers decoded greedily"
    say(console, title, style="italic")
    names = list(words)
    for first in range(0, len(names), SIDE_BY_SIDE):
        some = {name: words[name] for name in names[first : first + SIDE_BY_SIDE]}
        _show_table(console, result, {"base": "base\nalone", **some})
    own = own_questions(result)
    said = own or (
        f"{result['problems']:,} held-out problems, at most {result['count']} of a family and steps"
        + (f", each after {counted(result['shots'], 'solved one')}" if result["shots"] else "")
    )
    whose = "file" if own else "family"
    intervals = f"Each {whose}'s and the total's 95 % interval from resampling problems."
    say(console, f"{harmless(said)}. {intervals}")
    if own:
        pairs = result["pairs"]
        form = f"Read as {pairs['template']!r}, answers after {pairs['separator']!r}."
        say(console, harmless(form))
    for name, chain in result.get("chains", {}).items():
        say(console, f"{words[name].capitalize()}: {_chain(chain)}.", style="dim italic")
    for name, heading in words.items():
        say(console, f"{heading} against the base: {_said(total['against_base'][name])}.")
    for name, found in total["latents_against"].items():
        say(console, f"latents against {words[name]}: {_said(found)}.")
    from deliberate.core.verdict import few_problems, nearly_none

    for caveat in filter(None, (nearly_none(total), few_problems(result))):
        say(console, caveat)


def _show_table(console: "Console", result: dict[str, Any], names: Mapping[str, str]) -> None:
    from rich.text import Text

    own = "sources" in result
    table = empty("file" if own else "family")
    table.leading = 0
    if not own:
        table.add_column("steps", justify="right", min_width=len("steps"))
    for heading in names.values():
        table.add_column(Text(heading), justify="right", min_width=len("10.0…20.0"))
    cells = [
        (family, number, cell)
        for family, rows in result["families"].items()
        for number, cell in rows.items()
    ]
    if not own or len(cells) > 1:  # of one file they are the same
        cells.append(("all", "all", result["total"]))
    for family, number, cell in cells:
        found = [_share(cell["percent"][name], whole=number == "all") for name in names]
        steps = [] if own else [number]
        table.add_row(Text(harmless(family)) if number == "all" else "", *steps, *found)
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
    time, before, words = "", chain["question_cue"].strip(), chain["cue"].strip()
    cue = f"{before!r} before the question, " if before else ""
    cue += "a line end" + (f" and {words!r}" if words else "")
    if "latency" in chain:
        took = {name: 1000 * seconds for name, seconds in chain["latency"].items()}
        time = (
            f"on this machine latents take {took['latents_seconds']:.1f} ms and a token "
            f"{took['token_seconds']:.1f} ms; "
        )
    return (
        f"{time}the cue is {cue}, then {chain['answer_cue']!r}; on "
        f"average {chain['decoded_tokens']:.1f} tokens decoded, {chain['extra_tokens']:.1f} with "
        "the cues"
    )


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
