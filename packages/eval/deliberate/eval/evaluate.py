"""Coprocessors, their base, one held-out corpus: what do the latents buy?

    passages --base, latents, controls, baselines--> losses --bootstrap--> Report
                                                      +--> gate, examples

Source: arXiv:2412.17747, section 3.1 and table 1; the controls and intervals are ours.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from deliberate.core.base import Base
from deliberate.core.checkpoint import Trained
from deliberate.core.measure import Losses, Observed, measure_late
from deliberate.core.pairs import PairFormat
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
    data: str | None = None,
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
    data: str | None = None,
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
        (number, name): condition
        for number, subject in enumerate(subjects)
        for name, condition in conditions_of(subject, sample.seed).items()
    }
    first, latents = subjects[0].trained, [s.trained.coprocessor.config.latents for s in subjects]
    drawn = draw(
        base,
        first,
        sample,
        latents=max(latents),
        data=data,
        field=field,
        pairs=pairs,
        domain=domain,
    )
    total = len(drawn.passages)
    watching = [
        _Watching(f"{number} latents", base, drawn, sample) for number in range(len(subjects))
    ]

    def observe(observed: Observed) -> None:
        for each in watching:
            each(observed)

    on_passages(0, total)
    by_delay = measure_late(
        base,
        {f"{number} {name}": each for (number, name), each in conditions.items()},
        drawn.passages,
        delays=sample.delays,
        anchors=sample.anchors,
        ahead=sample.ahead,
        seed=sample.seed,
        on_batch=lambda done: on_passages(done, total),
        observe=observe,
        smaller=smaller_batches(conditions.values(), on_note, what="passages", way_out=WAY_OUT),
    )

    def own(losses: Losses, number: int) -> Losses:
        names = {name: f"{number} {name}" for other, name in conditions if other == number}
        sums = {name: losses.sums[full] for name, full in names.items() if full in losses.sums}
        return replace(losses, sums={"base": losses.sums["base"], **sums})

    return [
        Report(
            base=base,
            trained=subject.trained,
            baselines=subject.baselines,
            by_delay={delay: own(losses, number) for delay, losses in by_delay.items()},
            sample=sample,
            drawn=drawn,
            gate=each.gate if subject.trained.coprocessor.writes_latents else None,
            quoted=each.examples,
        )
        for number, (subject, each) in enumerate(zip(subjects, watching, strict=True))
    ]


class _Watching:
    """What is kept of each anchor, or of some of them, beside the sums."""

    def __init__(self, name: str, base: Base, drawn: Drawn, sample: Sample) -> None:
        self._gains = GainsObserved(name, drawn.passages)
        self._seed = sample.seed
        self.examples = Examples(name, drawn.passages, base.tokenizer, delay=sample.delays[0])

    def __call__(self, observed: Observed) -> None:
        self._gains(observed)
        self.examples(observed)

    @property
    def gate(self) -> Gate:
        return Gate(gains=self._gains.found, seed=self._seed)
