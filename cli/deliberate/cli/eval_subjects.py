"""The runs that `deliberate eval` measures, and what each is compared with."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from deliberate.cli import options
from deliberate.cli.models import load_coprocessor

if TYPE_CHECKING:
    from deliberate.core.base import Base
    from deliberate.eval import Sample, Subject
    from deliberate.eval.against import Against


def compared(
    runs: Sequence[str], against: str | None, soft: str | None, sample: "Sample | None"
) -> "Against":
    """What the latents are compared with.

    Args:
        runs: What is measured.
        against: As `--against` names it, if it does.
        soft: As `--soft` names it, if it does.
        sample: What of texts is measured; none where problems are asked.

    Raises:
        ValueError: a control is not known or not for this, or two soft embeddings are named.
    """
    from deliberate.eval.against import Against, parsed

    named = Against() if against is None else parsed(against)
    named.check(sample)
    if soft is None and against is None and list(runs) == [options.EMBEDDED]:
        soft = f"{options.EMBEDDED}-soft"
    if soft is None:
        return named
    if "soft" in named.baselines:
        raise ValueError(f"--soft {soft} and --against soft: both name a baseline: leave out one")
    return replace(named, baselines={"soft": soft, **named.baselines})


def load_subjects(runs: Sequence[str], against: "Against", base: "Base") -> "list[Subject]":
    """Load the runs and the baselines, each of these once.

    Among several runs a baseline is compared with those that have as many latents.
    """
    from deliberate.eval import Subject

    loaded = [load_coprocessor(run, base) for run in runs]
    baselines = {name: load_coprocessor(run, base) for name, run in against.baselines.items()}
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
            baselines={
                name: baseline
                for name, baseline in baselines.items()
                if fits(baseline.coprocessor.config.latents, trained.coprocessor.config.latents)
            },
        )
        for trained in loaded
    ]
