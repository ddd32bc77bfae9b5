"""One coprocessor, one base, one held-out corpus: what do the latents buy?

    passages --base, latents, controls, baseline--> losses --bootstrap--> Report

Source: arXiv:2412.17747, section 3.1 and table 1; the controls and intervals are ours.
"""

from collections.abc import Callable

from deliberate.core.base import Base
from deliberate.core.checkpoint import Trained
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.errors import CheckpointError
from deliberate.core.kinds import KINDS
from deliberate.core.measure import Condition, measure
from deliberate.core.pairs import PairFormat
from deliberate.eval.controls import shuffled, shuffled_but_last
from deliberate.eval.report import Report
from deliberate.eval.sample import Sample, draw


def evaluate(
    base: Base,
    trained: Trained,
    *,
    soft: Trained | None = None,
    data: str | None = None,
    field: str | None = None,
    pairs: PairFormat | None = None,
    sample: Sample | None = None,
    on_passages: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Measure a coprocessor against its base, controls and a baseline on held-out text.

    Args:
        base: The frozen model.
        trained: The coprocessor.
        soft: A soft embedding or pause token with as many latents, as the baseline.
        data: A source as in `deliberate.core.texts`, read whole; none is what the coprocessor's
            own recipe held out.
        field: The key of the text in files of rows.
        pairs: The columns of questions and answers in such a file; the one anchor is then each
            question's end. With none of these two `data` is read as the coprocessor's own recipe
            reads texts or pairs.
        sample: How much is measured; by default as `Sample` says.
        on_passages: Told of the passages done and to do, first of all that none is done.

    Raises:
        CheckpointError: `soft` is no such baseline, or has another number of latents.
        TextError: the texts cannot be read, or are too short, or no pair fits.
    """
    sample = sample or Sample()
    conditions = _conditions(trained, soft)
    drawn = draw(base, trained, sample, data=data, field=field, pairs=pairs)
    total = len(drawn.passages)
    on_passages(0, total)
    losses = measure(
        base,
        conditions,
        drawn.passages,
        anchors=sample.anchors,
        ahead=sample.ahead,
        seed=sample.seed,
        on_batch=lambda done: on_passages(done, total),
    )
    return Report(base=base, trained=trained, soft=soft, losses=losses, sample=sample, drawn=drawn)


def _conditions(trained: Trained, soft: Trained | None) -> dict[str, Condition]:
    """What the base reads after each anchor, by the name that the report gives it."""
    writer = trained.coprocessor
    conditions = {"latents": Condition(writer=writer)}
    if writer.writes_latents:
        conditions["shuffled"] = Condition(writer=writer, change=shuffled)
    if writer.writes_latents and writer.config.latents > 1:
        conditions["shuffled_but_last"] = Condition(writer=writer, change=shuffled_but_last)
    if soft is not None:
        _check_baseline(soft, writer)
        conditions["soft"] = Condition(writer=soft.coprocessor)
    return conditions


def _check_baseline(soft: Trained, writer: Coprocessor) -> None:
    config = soft.coprocessor.config
    latents = writer.config.latents if writer.writes_latents else config.latents
    if not soft.coprocessor.baseline or config.latents != latents:
        kinds = [kind for kind, made in KINDS.items() if made.baseline]
        raise CheckpointError(
            f"{soft.id!r} is of kind {config.kind!r} with {config.latents} latents, and the "
            f"baseline must be of kind {' or '.join(kinds)} with {latents}: train one with --set "
            f"coprocessor.kind={kinds[0]} --set coprocessor.latents={latents}"
        )
