"""The runs that `deliberate eval` measures, and what each is compared with."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from deliberate.cli import options
from deliberate.cli.eval_against import Against, parsed
from deliberate.cli.eval_suites import AGAINST, Suite

if TYPE_CHECKING:
    from deliberate.core.checkpoint import Trained
    from deliberate.eval import Subject


def compared(
    runs: Sequence[str], against: str | None, soft: str | None, suite: Suite | None
) -> Against:
    """What the latents are compared with.

    Args:
        runs: What is measured.
        against: As `--against` names it, if it does.
        soft: As `--soft` names it, if it does.
        suite: Has its own where neither says anything.

    Raises:
        ValueError: a control is not known or not for this, or two soft embeddings are named.
    """
    if soft is None and against is None and list(runs) == [options.EMBEDDED]:
        soft = f"{options.EMBEDDED}-soft"
    if against is not None:
        named = parsed(against)
    else:
        named = Against() if suite is None else replace(parsed(AGAINST[suite]), lenient=True)
    if soft is None:
        return named
    if "soft" in named.baselines:
        raise ValueError(f"--soft {soft} and --against soft: both name a baseline: leave out one")
    return replace(named, baselines={"soft": soft, **named.baselines})


def load_subjects(
    runs: Sequence[str], against: Against, load: "Callable[[str], Trained]"
) -> "list[Subject]":
    """The runs, each with what it is compared with.

    Among several runs a baseline is compared with those that have as many latents.

    Args:
        runs: Their names.
        against: What they are compared with.
        load: Loads a run or a baseline, each once.
    """
    from deliberate.eval import Subject

    loaded = [load(run) for run in runs]
    baselines = {name: load(run) for name, run in against.baselines.items()}
    counts = {trained.coprocessor.config.latents for trained in loaded}

    def fits(count: int, own: int) -> bool:
        # One that fits none goes to all, and is refused there.
        return len(runs) == 1 or count == own or count not in counts

    return [
        Subject(
            trained=trained,
            controls=against.controls,
            every=against.every,
            chains=against.chains,
            room=max(counts),
            lenient=against.lenient,
            baselines={
                name: baseline
                for name, baseline in baselines.items()
                if fits(baseline.coprocessor.config.latents, trained.coprocessor.config.latents)
            },
        )
        for trained in loaded
    ]
