"""Which passages of the held-out text are measured, and how closely.

source --> documents --cut, shorter where they would be few, and drawn--> passages
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from datasets import Dataset

from deliberate.core.base import Base
from deliberate.core.checkpoint import Trained
from deliberate.core.errors import DeliberateError, TextError
from deliberate.core.pairs import (
    PairFormat,
    Room,
    fitting,
    pair_passages,
    tokenize_pairs,
    validation_pairs,
)
from deliberate.core.passages import Passage, passages
from deliberate.core.sources import Source, check_has_columns, label, sources
from deliberate.core.texts import documents, validation_texts

ENOUGH_PASSAGES = 20
"""With fewer passages than this they are cut shorter, unless a length was asked for."""

MOST_DOMAINS = 100
"""More of them are no domains but names of rows."""

MOST_SEED = 2**32 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How much is measured."""

    texts: int = 256
    """Most passages."""

    anchors: int | None = 32
    """Anchors in each passage, or as many as fit. None: after every token that has room."""

    ahead: int = 32
    """Tokens after each anchor."""

    length: int | None = None
    """Most tokens in a passage. None: as in the coprocessor's recipe, and less where the text
    gives few passages."""

    delays: tuple[int, ...] = (0,)
    """Tokens that the base decodes before the latents arrive; a table each."""

    seed: int = 0
    """Of the passages, the anchors, random latents and the resampling."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: one of them is out of range.
        """
        for name in ("texts", "anchors", "ahead"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not self.delays or min(self.delays) < 0 or len({*self.delays}) < len(self.delays):
            said = ",".join(map(str, self.delays))
            raise ValueError(f"delay must be numbers of at least 0, each once, got {said!r}")
        if self.length is not None and self.length < self.least:
            late = " + delay" if max(self.delays) else ""
            raise ValueError(
                f"length must be at least ahead{late} + 2 = {self.least}, got {self.length}"
            )
        if not 0 <= self.seed <= MOST_SEED:
            raise ValueError(f"seed must be from 0 to {MOST_SEED}, got {self.seed}")

    @property
    def least(self) -> int:
        """Fewest tokens in a passage: room for more than one anchor."""
        return self.ahead + max(self.delays) + 2


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The passages to be measured."""

    passages: list[Passage]

    source: str
    """What they are from."""

    length: int
    """Most tokens in one of them."""

    length_wanted: int
    """The same, had there been text enough."""

    pairs: PairFormat | None = None
    """How they are questions and answers, if they are."""

    left_out: int = 0
    """Pairs that did not fit."""

    domains: bool = False
    """Whether the passages say what they are of."""


def draw(
    base: Base,
    trained: Trained,
    sample: Sample,
    *,
    latents: int,
    fewest: int,
    data: str | Source | None,
    field: str | None = None,
    pairs: PairFormat | None = None,
    domain: str | None = None,
) -> Drawn:
    """Cut the held-out texts into passages, and draw those to be measured.

    Args:
        base: Whose tokens are counted.
        trained: Its recipe says what was held out, and how long passages are.
        sample: How much of it.
        latents: Most of them after an anchor.
        fewest: Passages that there must be: two where a control takes from another one.
        data: A source as in `deliberate.core.texts`, read whole; none is what was held out.
        field: The key of the text in files of rows.
        pairs: The columns of questions and answers; with neither of these two, as in its recipe.
        domain: The column of `data` that says what each row is of.

    Raises:
        TextError: the texts cannot be read, or give too few passages; or there is a `domain`
            and no `data`, or it has too many values.
    """
    if domain is not None and data is None:
        raise TextError(
            f"domain {domain!r} is a column of --data, and none is named: name the file of rows"
        )
    if sample.texts < fewest:
        raise TextError(
            f"texts is {sample.texts}, and controls with another text's latents need {fewest}: "
            "give more --texts, or compare with the base alone by --against none"
        )
    drawn = _draw(base, trained, sample, latents, data, field, pairs, domain)
    _check_enough(drawn, fewest)
    found = {passage.domain for passage in drawn.passages}
    if len(found) > MOST_DOMAINS:
        raise TextError(
            f"{domain!r} has {len(found)} values in {drawn.source!r}, and at most {MOST_DOMAINS} "
            "domains are told apart: name a column that says what kind of text a row is"
        )
    return replace(drawn, domains=domain is not None)


def _draw(
    base: Base,
    trained: Trained,
    sample: Sample,
    latents: int,
    data: str | Source | None,
    field: str | None,
    pairs: PairFormat | None,
    domain: str | None,
) -> Drawn:
    """Draw passages or pairs."""
    recipe = trained.recipe.get("data", {})
    form = pairs or (PairFormat.of(recipe) if field is None else None)
    if form is not None:
        return _draw_pairs(base, trained, sample, form, latents=latents, data=data, domain=domain)
    held_out = trained.recipe.get("eval", {}).get("texts", 64)
    source, texts = _held_out(recipe, data, field, domain, most=held_out)
    wanted = length = _length(base, trained, sample, latents)

    def cut(length: int) -> list[Passage]:
        least, limit = sample.least, sample.texts
        return passages(
            texts, base.tokenizer, length=length, least=least, limit=limit, seed=sample.seed
        )

    found = cut(length)
    enough = min(ENOUGH_PASSAGES, sample.texts)
    while sample.length is None and len(found) < enough and length // 2 >= 2 * sample.least:
        length //= 2
        found = cut(length)
    return Drawn(passages=found, source=source, length=length, length_wanted=wanted)


def _draw_pairs(
    base: Base,
    trained: Trained,
    sample: Sample,
    form: PairFormat,
    *,
    latents: int,
    data: str | Source | None,
    domain: str | None,
) -> Drawn:
    """Draw pairs that fit."""
    recipe = trained.recipe.get("data", {})
    source, read = validation_pairs(
        recipe.get("train", "stdlib"),
        recipe.get("validation") if data is None else sources(data),
        form,
        domain=domain,
    )
    length = _length(base, trained, sample, latents)
    room = Room(
        length=length,
        latents=latents,
        ahead=sample.ahead,
        delay=max(sample.delays),
        positions=base.positions,
    )
    rows = tokenize_pairs(read, base.tokenizer, form)
    kept = fitting(rows, room, source=source)
    found = pair_passages(kept, limit=sample.texts, seed=sample.seed)
    return Drawn(
        passages=found,
        source=source,
        length=length,
        length_wanted=length,
        pairs=form,
        left_out=len(rows) - len(kept),
    )


def _check_enough(drawn: Drawn, fewest: int) -> None:
    """See that each passage has another one, where a control takes that one's latents.

    Raises:
        TextError: there is only one; names what to give more of, and that the controls may go.
    """
    if len(drawn.passages) >= fewest:
        return
    what, more = (
        ("passage", "more text, a smaller --length or --ahead")
        if drawn.pairs is None
        else ("pair", "more pairs, a larger --length")
    )
    raise TextError(
        f"{drawn.source!r} gives one {what} of at most {drawn.length} tokens, and controls with "
        f"another {what}'s latents need {fewest}: give {more}, or compare with the base alone by "
        "--against none"
    )


def _length(base: Base, trained: Trained, sample: Sample, latents: int) -> int:
    """Most tokens in a passage that the base has positions for.

    Raises:
        DeliberateError: it has too few for a single anchor.
    """
    positions, late = base.positions, max(sample.delays)
    if positions is not None and late + sample.ahead + latents + 1 > positions:
        waiting = f" {late} tokens late" if late else ""
        raise DeliberateError(
            f"{base.id!r} has {positions} positions, too few for {latents} latents{waiting} and "
            f"{sample.ahead} tokens ahead: give a smaller {'--delay or ' if late else ''}--ahead"
        )
    recipe = trained.recipe.get("data", {}).get("length", 512)
    length = max(sample.length or recipe, sample.least)
    return length if positions is None else min(length, positions)


def _held_out(
    recipe: Mapping[str, Any],
    data: str | Source | None,
    field: str | None,
    domain: str | None,
    *,
    most: int,
) -> tuple[str, Dataset]:
    """The source's name and its documents."""
    if data is not None:
        if field is not None:
            for source in sources(data):
                check_has_columns(source, field)
        return label(sources(data)), documents(
            data, split="validation", field=field or "text", domain=domain
        )
    return validation_texts(
        recipe.get("train", "stdlib"),
        recipe.get("validation"),
        field=field or recipe.get("field", "text"),
        streaming=recipe.get("streaming", False),
        most=most,
    )
