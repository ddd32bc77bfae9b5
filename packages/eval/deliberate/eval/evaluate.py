"""Coprocessors, their base, one held-out corpus: what do the latents buy?

    passages --base, latents, controls, baselines--> losses --bootstrap--> Report
                                                      +--> gate, examples

Source: arXiv:2412.17747, section 3.1 and table 1; the controls and intervals are ours.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from deliberate.core.base import Base
from deliberate.core.checkpoint import Trained
from deliberate.core.measure import Condition, Losses, Observed, measure_late
from deliberate.core.memory import Smaller
from deliberate.core.pairs import PairFormat
from deliberate.core.sources import Source
from deliberate.eval.examples import Examples
from deliberate.eval.gate import GainsObserved, Gate
from deliberate.eval.report import Report
from deliberate.eval.sample import Drawn, Sample, draw
from deliberate.eval.subject import Subject, conditions_of, smaller_batches

WAY_OUT = "give a smaller --length, --dtype bfloat16, or another device"
"""What to do where the memory is too small for the smallest batch."""


def evaluate(
    base: Base,
    trained: Trained,
    *,
    soft: Trained | None = None,
    pause: Trained | None = None,
    controls: Sequence[str] | None = None,
    every: Sequence[int] = (),
    data: str | Source | None = None,
    field: str | None = None,
    pairs: PairFormat | None = None,
    domain: str | None = None,
    sample: Sample | None = None,
    on_passages: Callable[[int, int], None] = lambda done, total: None,
    on_note: Callable[[str], None] = lambda text: None,
) -> Report:
    """Measure a coprocessor against its base, controls and baselines on held-out text.

    Args:
        base: The frozen model.
        trained: The coprocessor.
        soft: A soft embedding or pause token with as many latents, as the baseline.
        pause: A pause token with as many latents, as another one.
        controls: Names of `CONTROLS`; none are another text's latents, with and without the last.
        every: Tokens after which latents are asked for again, each a condition of its own.
        data: A source as in `deliberate.core.texts`, read whole; none is what the coprocessor's
            own recipe held out.
        field: The key of the text in files of rows.
        pairs: The columns of questions and answers in such a file; the one anchor is then each
            question's end. With none of these two `data` is read as the coprocessor's own recipe
            reads texts or pairs.
        domain: A column of `data`; each of its values is reported by itself too.
        sample: How much is measured; by default as `Sample` says.
        on_passages: Told of the passages done and to do, first of all that none is done.
        on_note: Told of a batch that was lowered, since the memory is too small for it.

    Raises:
        CheckpointError: a baseline is none, or has another number of latents; or a control needs
            latents that there are not.
        TextError: the texts cannot be read, or are too short, or no pair fits.
    """
    named = {"soft": soft, "pause": pause}
    baselines = {name: each for name, each in named.items() if each is not None}
    (report,) = evaluate_together(
        base,
        [Subject(trained=trained, controls=controls, baselines=baselines, every=every)],
        data=data,
        field=field,
        pairs=pairs,
        domain=domain,
        sample=sample,
        on_passages=on_passages,
        on_note=on_note,
    )
    return report


def evaluate_together(
    base: Base,
    subjects: Sequence[Subject],
    *,
    data: str | Source | None = None,
    field: str | None = None,
    pairs: PairFormat | None = None,
    domain: str | None = None,
    sample: Sample | None = None,
    on_passages: Callable[[int, int], None] = lambda done, total: None,
    on_note: Callable[[str], None] = lambda text: None,
) -> list[Report]:
    """Measure several coprocessors of one base at the same anchors of the same passages.

    Args:
        base: The frozen model.
        subjects: The coprocessors. Where nothing else is said, the first one's recipe says what
            was held out.
        data: As in `evaluate`, as are the others.
        field: The key of the text.
        pairs: The columns of questions and answers.
        domain: A column of `data`.
        sample: How much is measured.
        on_passages: Told of the passages done and to do.
        on_note: Told of a batch that was lowered.

    Raises:
        CheckpointError: as `evaluate`.
        DeliberateError: as `evaluate`.
        TextError: as `evaluate`.
    """
    sample = sample or Sample()
    conditions = {
        f"{number} {name}": condition
        for number, subject in enumerate(subjects)
        for name, condition in conditions_of(subject, sample.seed).items()
    }
    drawn = draw(
        base,
        subjects[0].trained,
        sample,
        fewest=1 + any(condition.partnered for condition in conditions.values()),
        latents=max(subject.trained.coprocessor.config.latents for subject in subjects),
        data=data,
        field=field,
        pairs=pairs,
        domain=domain,
    )
    watching = [
        _Watching(number, subject, base, drawn, sample) for number, subject in enumerate(subjects)
    ]
    smaller = smaller_batches(conditions.values(), on_note, what="passages", way_out=WAY_OUT)
    by_delay = _measured(base, conditions, drawn, sample, watching, smaller, on_passages)
    return [each.report(by_delay) for each in watching]


class _Watching:
    """What is kept of each anchor, or of some of them, beside the sums."""

    def __init__(
        self, number: int, subject: Subject, base: Base, drawn: Drawn, sample: Sample
    ) -> None:
        self._prefix = f"{number} "  # of this subject's conditions
        self._subject, self._base, self._drawn, self._sample = subject, base, drawn, sample
        name = f"{self._prefix}latents"
        self._gains = GainsObserved(name, drawn.passages)
        self._examples = Examples(name, drawn.passages, base.tokenizer, delay=sample.delays[0])

    def __call__(self, observed: Observed) -> None:
        self._gains(observed)
        self._examples(observed)

    def report(self, by_delay: Mapping[int, Losses]) -> Report:
        """What was measured of this subject, among all that were."""
        trained = self._subject.trained
        gated = trained.coprocessor.writes_latents
        return Report(
            base=self._base,
            trained=trained,
            baselines=self._subject.baselines,
            by_delay={delay: self._own(losses) for delay, losses in by_delay.items()},
            sample=self._sample,
            drawn=self._drawn,
            gate=Gate(gains=self._gains.found, seed=self._sample.seed) if gated else None,
            quoted=self._examples,
        )

    def _own(self, losses: Losses) -> Losses:
        sums = {
            name.removeprefix(self._prefix): sums
            for name, sums in losses.sums.items()
            if name.startswith(self._prefix)
        }
        return replace(losses, sums={"base": losses.sums["base"], **sums})


def _measured(
    base: Base,
    conditions: Mapping[str, Condition],
    drawn: Drawn,
    sample: Sample,
    watching: Sequence[_Watching],
    smaller: Smaller,
    on_passages: Callable[[int, int], None],
) -> dict[int, Losses]:
    """Losses by delay, watched anchor by anchor."""
    total = len(drawn.passages)

    def observe(observed: Observed) -> None:
        for each in watching:
            each(observed)

    on_passages(0, total)
    return measure_late(
        base,
        conditions,
        drawn.passages,
        delays=sample.delays,
        anchors=sample.anchors,
        ahead=sample.ahead,
        seed=sample.seed,
        on_batch=lambda done: on_passages(done, total),
        observe=observe,
        smaller=smaller,
    )
