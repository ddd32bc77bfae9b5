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


def conditions_of(subject: Subject, seed: int) -> dict[str, Condition]:
    """What the base reads after each anchor, by the name that a report gives it.

    Args:
        subject: The coprocessor, and what it is compared with.
        seed: Of random latents.

    Raises:
        CheckpointError: a baseline is none, or has another number of latents; or a control, or
            asking again, needs latents that there are not.
    """
    writer = subject.trained.coprocessor
    if subject.every and not writer.writes_latents:
        raise CheckpointError(
            f"'every:{subject.every[0]}' asks for latents again, and {subject.trained.id!r} of "
            f"kind {writer.config.kind!r} writes none: leave it out of --against"
        )
    controls = {
        name: Condition(writer=writer, change=CONTROLS[name](seed), partnered=name in OF_PARTNERS)
        for name in _controls(subject)
    }
    baselines = {}
    for name, trained in subject.baselines.items():
        _check_baseline(name, trained, writer)
        baselines[name] = Condition(writer=trained.coprocessor, partnered=False)
    latents = Condition(writer=writer, partnered=False)
    again = {f"every:{every}": replace(latents, every=every) for every in subject.every}
    return {"latents": latents, **controls, **again, **baselines}


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
    """The controls that were named, or those by default that there can be.

    Raises:
        CheckpointError: a named one needs latents that there are not.
    """
    config = subject.trained.coprocessor.config
    count = config.latents if subject.trained.coprocessor.writes_latents else 0
    named = DEFAULT if subject.controls is None else subject.controls
    able = [name for name in named if count > (name in OF_SEVERAL)]
    if subject.controls is None or len(able) == len(named):
        return able
    (odd, *_) = [name for name in named if name not in able]
    least = "two latents" if odd in OF_SEVERAL else "latents"
    raise CheckpointError(
        f"control {odd!r} needs {least}, and {subject.trained.id!r} of kind {config.kind!r} writes "
        f"{count}: leave it out of --against"
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
