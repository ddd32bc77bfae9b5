"""`deliberate eval` on texts: perplexity by token ahead, as options name what is read.

options --> Texts --base, subjects--> a report each, shown alone or side by side
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deliberate.cli.eval_against import Against
from deliberate.cli.eval_names import delays
from deliberate.cli.eval_shown import show, show_together
from deliberate.cli.eval_tasks import PERPLEXITY
from deliberate.cli.models import patient_bars
from deliberate.cli.terminal import Advance, note, progress

if TYPE_CHECKING:
    from deliberate.core.base import Base
    from deliberate.core.pairs import PairFormat
    from deliberate.eval import Report, Sample, Subject

TEXTS = 256
ANCHORS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """Held-out texts, and how closely they are measured."""

    against: Against
    sample: "Sample"
    data: str | None = None
    skip_bad: bool = False
    """Whether files that cannot be read are left out."""
    field: str | None = None
    pairs: "PairFormat | None" = None
    domain: str | None = None
    examples: bool = False
    """Whether the result quotes texts, which only a report does."""

    @property
    def name(self) -> str:
        """What results call it."""
        return PERPLEXITY

    def settings(self) -> dict[str, Any]:
        """What was asked for, and how much of it."""
        return {
            **asdict(self.sample),
            "against": asdict(self.against),
            "data": self.data,
            "data_state": state_of(self.data),
            "skip_bad": self.skip_bad,
            "field": self.field,
            "pairs": self.pairs and asdict(self.pairs),
            "domain": self.domain,
        }

    def measure(self, base: "Base", subjects: "Sequence[Subject]") -> list[dict[str, Any]]:
        """Measure all coprocessors at the same anchors."""
        from deliberate.core.sources import Source
        from deliberate.eval import evaluate_together

        data = Source(path=self.data, skip_bad=True) if self.data and self.skip_bad else self.data
        with patient_bars(), progress("measuring passages", None) as advance:
            reports = evaluate_together(
                base,
                subjects,
                data=data,
                field=self.field,
                pairs=self.pairs,
                domain=self.domain,
                sample=self.sample,
                on_passages=_counting(advance),
                on_note=note,
            )
        _tell(reports[0])
        return [report.to_dict(examples=self.examples) for report in reports]

    def show(self, result: list[dict[str, Any]], runs: Sequence[str], base: str) -> None:
        """Show one run's table and verdict, or a column for each of several."""
        if len(runs) == 1:
            show(result[0], runs[0], base)
        else:
            show_together(result, runs, base)


def texts_named(said: Mapping[str, Any], *, against: Against, run: str, examples: bool) -> Texts:
    """The texts that options name.

    Args:
        said: The command's parameters, which `eval_checks` has seen.
        against: What latents are compared with.
        run: Whose delay it is where none is named.
        examples: Whether the result quotes texts.

    Raises:
        ValueError: one of them is out of range, or `against` is not for the run's own delay.
    """
    from deliberate.eval import Sample

    sample = Sample(
        texts=TEXTS if said["texts"] is None else said["texts"],
        anchors=None if said["every_token"] else said["anchors"] or ANCHORS,
        ahead=said["ahead"],
        length=said["length"],
        delays=_own_delay(run) if said["delay"] is None else delays(said["delay"]),
        seed=said["seed"],
    )
    if not against.lenient:
        against.check(ahead=sample.ahead, delays=sample.delays)
    return Texts(
        against=against.fitting(sample),
        sample=sample,
        data=said["data"],
        skip_bad=said["skip_bad"],
        field=said["field"],
        pairs=_pairs(said),
        domain=said["domain"],
        examples=examples,
    )


def _own_delay(run: str) -> tuple[int, ...]:
    """The delay that a run learned with, by which its own validations go."""
    from deliberate.core.checkpoint import find_coprocessor, read_config

    recipe = read_config(find_coprocessor(run)).get("recipe") or {}
    return (recipe.get("objective", {}).get("delay", 0),)


def _pairs(said: Mapping[str, Any]) -> "PairFormat | None":
    """The columns of questions and answers, if they are named.

    Raises:
        ValueError: they are one column, or the template has no place for a question.
    """
    from deliberate.core.pairs import PairFormat

    return PairFormat.of(said)


def state_of(data: str | None) -> list[Any] | None:
    """Which files that are and when each was changed, so that others are measured anew.

    Args:
        data: A path, or what is none.

    Of several the latest would not do: one that is changed after the clock was set back is not it.
    """
    if data is None or not Path(data).exists():
        return None
    path = Path(data).resolve()
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    stats, digest = [file.stat() for file in files], hashlib.sha256()
    for file, status in zip(files, stats, strict=True):
        digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
    return [str(path), sum(status.st_size for status in stats), digest.hexdigest()[:16]]


def _counting(advance: Advance) -> Callable[[int, int], None]:
    """Moves the bar on by how many more passages are done."""
    before = 0

    def count(done: int, total: int) -> None:
        nonlocal before
        advance(done - before, total=total)
        before = done

    return count


def _tell(report: "Report") -> None:
    """Say what the user did not ask for."""
    drawn = report.drawn
    if drawn.length < drawn.length_wanted:
        note(
            f"few passages of {drawn.length_wanted} tokens in {drawn.source}: cut to at most "
            f"{drawn.length} tokens (--length chooses)"
        )
    if drawn.left_out:
        note(
            f"{drawn.left_out:,} pairs of {drawn.source} left out: they do not fit {drawn.length} "
            "tokens (--length chooses)"
        )
