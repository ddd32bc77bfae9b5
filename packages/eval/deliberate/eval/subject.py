"""A coprocessor, and what the base reads in place of its latents to compare with.

coprocessor, names of controls, baselines --> conditions
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from deliberate.core.checkpoint import Trained
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.errors import CheckpointError
from deliberate.core.kinds import KINDS
from deliberate.core.measure import Condition
from deliberate.core.memory import Smaller
from deliberate.eval.controls import CONTROLS, DEFAULT, OF_PARTNERS, OF_SEVERAL, Random


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A coprocessor, and what it is compared with besides the base."""

    trained: Trained
    controls: Sequence[str] | None = None
    """Names of `CONTROLS`; none are another text's latents, with and without the last."""

    baselines: Mapping[str, Trained] = field(default_factory=dict)
    """A soft embedding as `soft`, a pause token as `pause`, with as many latents."""

    every: Sequence[int] = ()
    """Latents asked for again each time so many tokens were read, as `every:8`."""

    chains: Sequence[str] = ()
    """The base's own chains of thought, as `Against` names them; for problems alone."""

    room: int = 0
    """Latents that questions are to have room for, where other runs write more and are asked the
    same; its own are always counted."""

    lenient: bool = False
    """Whether what there cannot be is left out, as `left_out` tells, and not refused."""


def conditions_of(subject: Subject, seed: int) -> dict[str, Condition]:
    """What the base reads after each anchor, by the name that a report gives it.

    Args:
        subject: The coprocessor, and what it is compared with.
        seed: Of random latents.

    Raises:
        CheckpointError: a baseline is none, or has another number of latents; or a control, or
            asking again, needs latents that there are not, and the subject is not lenient.
    """
    writer, lacking = subject.trained.coprocessor, left_out(subject)
    if not subject.lenient:
        _check_named(subject, lacking)
    controls = {
        name: Condition(writer=writer, change=CONTROLS[name](seed), partnered=name in OF_PARTNERS)
        for name in _controls(subject)
        if name not in lacking
    }
    baselines = {}
    for name, trained in subject.baselines.items():
        _check_baseline(name, trained, writer)
        baselines[name] = Condition(writer=trained.coprocessor, partnered=False)
    latents = Condition(writer=writer, partnered=False)
    again = {f"every:{every}": replace(latents, every=every) for every in subject.every}
    able = {name: condition for name, condition in again.items() if name not in lacking}
    return {"latents": latents, **controls, **able, **baselines}


def left_out(subject: Subject) -> list[str]:
    """What a subject cannot be compared with, since it writes no latents, or a single one.

    Controls that nobody named are always left out, and what was named where the subject is lenient.

    Args:
        subject: The coprocessor, and what it is compared with.

    Returns:
        Names as `--against` has them: of controls, of asking again, of chains of thought.
    """
    writer = subject.trained.coprocessor
    count = writer.config.latents if writer.writes_latents else 0
    again = [f"every:{every}" for every in subject.every]
    named = [*_controls(subject), *again, *subject.chains]
    return [name for name in named if count < (2 if name in OF_SEVERAL else 1)]


def smaller_batches(
    conditions: Collection[Condition], on_note: Callable[[str], None], *, what: str, way_out: str
) -> Smaller:
    """Go on in smaller batches where memory runs out, and say so.

    Args:
        conditions: From `conditions_of`; random ones among them draw the same once more.
        on_note: Told of a batch that was lowered.
        what: What there is several of in a batch.
        way_out: What to do where the smallest batch is too large.
    """
    changes = [condition.change for condition in conditions]
    if any(condition.partnered for condition in conditions):
        way_out += f"; without controls that take another's latents {what} may go one at a time"

    def on_less(size: int) -> None:
        several = "one" if size == 1 else f"{size} {what}"
        on_note(f"out of memory, going on with {several} at a time")

    return Smaller(
        on_less=on_less,
        way_out=way_out,
        generators=[change.generator for change in changes if isinstance(change, Random)],
    )


def _controls(subject: Subject) -> Sequence[str]:
    """The controls that were named, or those by default."""
    return DEFAULT if subject.controls is None else subject.controls


def _check_named(subject: Subject, lacking: Sequence[str]) -> None:
    """Refuse what was named and cannot be; chains of thought go with problems, and are seen there.

    Raises:
        CheckpointError: a control, or asking again, needs latents that there are not.
    """
    config, named = subject.trained.coprocessor.config, subject.controls or ()
    whose = f"{subject.trained.id!r} of kind {config.kind!r} writes"
    for name in lacking:
        if name in named:
            least = "two latents" if name in OF_SEVERAL else "latents"
            count = config.latents if subject.trained.coprocessor.writes_latents else 0
            raise CheckpointError(
                f"control {name!r} needs {least}, and {whose} {count}: leave it out of --against"
            )
        if name.startswith("every:"):
            raise CheckpointError(
                f"{name!r} asks for latents again, and {whose} none: leave it out of --against"
            )


def _check_baseline(name: str, baseline: Trained, writer: Coprocessor) -> None:
    config = baseline.coprocessor.config
    latents = writer.config.latents if writer.writes_latents else config.latents
    kinds = [kind for kind, made in KINDS.items() if made.baseline]
    kinds = kinds if name == "soft" else [name]
    if config.kind not in kinds or config.latents != latents:
        raise CheckpointError(
            f"{baseline.id!r} is of kind {config.kind!r} with {config.latents} latents, and the "
            f"baseline must be of kind {' or '.join(kinds)} with {latents}: train one with --set "
            f"coprocessor.kind={kinds[0]} --set coprocessor.latents={latents}"
        )
