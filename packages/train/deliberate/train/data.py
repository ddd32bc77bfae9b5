"""The rows a run learns from and the passages it is validated on.

data.train --read whole or streamed, packed or kept, mixed--> Rows --anchors--> batches
data.validation, held-out modules, or what is held out --> passages
"""

from collections.abc import Iterator, Sequence

import torch
from datasets import Dataset
from torch import Tensor

from deliberate.core.base import Base
from deliberate.core.errors import DeliberateError, TextError
from deliberate.core.groups import last_anchor, sample_anchors
from deliberate.core.packing import ANYWHERE, Packer, Wanted, pack
from deliberate.core.passages import Passage, passages
from deliberate.core.source_files import copies_named
from deliberate.core.sources import EMBEDDED, Source, sources
from deliberate.core.texts import documents, hold_out, validation_texts
from deliberate.core.thoughts import spelled
from deliberate.train.batch import Batch, moved
from deliberate.train.kept_rows import decisive_of, kept_rows
from deliberate.train.pairs import load_pair_passages, load_pairs, pair_batches
from deliberate.train.processes import Processes
from deliberate.train.recipe import Recipe
from deliberate.train.rows import Packed, Part, Row, Rows, with_room
from deliberate.train.stream import Stream


def check_room(recipe: Recipe, base: Base) -> None:
    """See that rows, latents and ahead tokens fit the base's positions.

    Raises:
        DeliberateError: they do not; names the number and the way out.
    """
    length, limit = recipe.data.length, base.positions
    if limit is not None and length > limit:
        raise DeliberateError(
            f"data.length is {length} and base {base.id!r} has {limit} positions: set data.length "
            f"to {limit} or less"
        )
    latents, delay = recipe.coprocessor.latents, recipe.objective.delay
    for name, ahead in (
        ("objective.ahead", recipe.objective.ahead),
        ("eval.ahead", recipe.eval.ahead),
    ):
        try:
            last_anchor(length, latents=latents, ahead=ahead, limit=limit, delay=delay)
        except ValueError as error:
            raise DeliberateError(
                f"{error}: set coprocessor.latents ({latents}) or {name} ({ahead})"
                f"{f' or objective.delay ({delay})' if delay else ''} lower, or data.length "
                f"({length}) higher"
            ) from error


def check_shares(recipe: Recipe, count: int) -> None:
    """See that each of `count` processes gets as many rows of a batch.

    Raises:
        DeliberateError: they do not.
    """
    if recipe.train.batch % count:
        raise DeliberateError(
            f"train.batch is {recipe.train.batch} and there are {count} processes, each of which "
            f"takes as many of its rows: set train.batch to a multiple of {count}"
        )


def load_rows(recipe: Recipe, base: Base, share: Processes) -> Rows:
    """This process's training rows, packed or pairs; those of a stream are not read yet.

    Raises:
        TextError: a source cannot be read, or has not one full row for each process.
    """
    data = recipe.data
    chosen = sources(data.train, field=data.field)
    parts = [_part(source, recipe, base, share) for source in chosen]
    weights = [source.weight for source in chosen]
    return Rows(parts, weights, seed=recipe.train.seed, share=share)


def _part(source: Source, recipe: Recipe, base: Base, share: Processes) -> Part:
    """The rows of one source.

    Raises:
        TextError: as in `load_rows`.
    """
    data = recipe.data
    if data.pairs is not None:
        return Packed(load_pairs(source, recipe, base, data.pairs), seed=recipe.train.seed)
    if data.streaming and source.path not in EMBEDDED:
        return _stream(source, recipe, base, share)
    return _packed(source, recipe, base, share)


@copies_named()
def _packed(source: Source, recipe: Recipe, base: Base, share: Processes) -> Packed:
    """The rows of a source that is read whole.

    Raises:
        TextError: there is not one for each process.
    """
    data, wanted = recipe.data, _wanted(source, recipe)
    tokenizer, length, markers = base.tokenizer, data.length, wanted.markers
    rows = kept_rows(
        lambda: decisive_of(source, tokenizer, length=length, markers=markers),
        lambda: pack(_texts(source, recipe), tokenizer, length=length, wanted=wanted),
    )
    if len(rows) < share.count:
        found = "less than" if not len(rows) else f"{len(rows)} rows of"
        each = f" for {share.count} processes" if share.count > 1 else ""
        raise TextError(
            f"{source.path!r} has {found} data.length = {data.length} tokens to train on{each}: "
            "give more text, or a smaller data.length"
        )
    if wanted:
        rows = rows.filter(with_room(_last_anchor(recipe, base)))
        if not len(rows):
            what, strings = ("thoughts", wanted.thought) if wanted.thought else ("markers", markers)
            raise TextError(
                f"no row of {source.path!r} holds one of its {what} "
                f"({', '.join(map(repr, strings))}) with room behind it: name strings that are in "
                "the texts"
            )
    return Packed(rows, seed=recipe.train.seed)


def _texts(source: Source, recipe: Recipe) -> Dataset:
    """A source's texts to learn from, read whole.

    Raises:
        TextError: they cannot be read, or nothing can be held out.
    """
    texts = documents(source)
    if recipe.data.validation is not None or source.path in EMBEDDED:
        return texts  # an embedded source has held-out texts of its own
    return hold_out(texts, source.path, thought=source.thought)[0]


def _stream(source: Source, recipe: Recipe, base: Base, share: Processes) -> Stream:
    """The rows of a source that is read as the run goes on."""
    wanted = _wanted(source, recipe)
    return Stream(
        source,
        Packer(base.tokenizer, length=recipe.data.length, wanted=wanted),
        seed=recipe.train.seed,
        share=share,
        keep=with_room(_last_anchor(recipe, base)) if wanted else None,
        hold_out=recipe.data.validation is None,
    )


def _wanted(source: Source, recipe: Recipe) -> Wanted:
    """Where anchors of a source's rows are."""
    if recipe.objective.place != "marker":
        return ANYWHERE
    if source.thought is not None:
        return Wanted(thought=source.thought, latents=recipe.coprocessor.latents)
    markers = recipe.objective.markers or () if source.markers is None else source.markers
    return Wanted(markers=markers)


def _last_anchor(recipe: Recipe, base: Base) -> int:
    objective = recipe.objective
    return last_anchor(
        recipe.data.length,
        latents=recipe.coprocessor.latents,
        ahead=objective.ahead,
        limit=base.positions,
        delay=objective.delay,
    )


def load_passages(recipe: Recipe, base: Base) -> list[Passage]:
    """Held-out passages for validation."""
    data = recipe.data
    if data.pairs is not None:
        return load_pair_passages(recipe, base, data.pairs)
    _, texts = validation_texts(
        data.train,
        data.validation,
        field=data.field,
        streaming=data.streaming,
        most=recipe.eval.texts,
    )
    return passages(
        texts,
        base.tokenizer,
        length=data.length,
        least=recipe.eval.ahead + recipe.objective.delay + 2,
        limit=recipe.eval.texts,
    )


def batches(
    rows: Rows, recipe: Recipe, base: Base, *, step: int, share: Processes
) -> Iterator[Batch]:
    """This process's share of the batches of one optimizer step.

    Of texts that are read whole, the batches are a function of the recipe and the step alone, so
    that a resumed run sees what the uninterrupted one would have, and two processes what one would.
    """
    size, parts = recipe.train.batch, recipe.train.accumulate
    firsts = range(step * parts * size, (step + 1) * parts * size, size)
    if recipe.data.pairs is not None:
        yield from pair_batches(
            [rows.all(each, size) for each in firsts], recipe, base, share=share
        )
        return
    generator = torch.Generator().manual_seed(recipe.train.seed * 1_000_003 + step)
    own = share.share_of(size)
    last = _last_anchor(recipe, base)
    for first in firsts:
        taken = share.by_all(lambda first=first: rows.own(first, size))
        marks = [row.get("marks") for row in taken]
        anchors = _anchors(marks, recipe, last, generator, own)
        yield Batch(
            token_ids=moved(torch.stack([row["token_ids"] for row in taken]), base.device),
            anchors=moved(anchors, base.device),
            spelled=_spelled(taken, anchors, recipe, base),
        )


def _spelled(taken: Sequence[Row], anchors: Tensor, recipe: Recipe, base: Base) -> Tensor | None:
    """The tokens that latents are drawn to, (own rows, anchors, latents), if they are to any."""
    if not recipe.objective.thought:
        return None
    found = [
        spelled(
            row["token_ids"],
            own,
            latents=recipe.coprocessor.latents,
            marks=row.get("marks"),
            thoughts=row.get("thoughts"),
        )
        for row, own in zip(taken, anchors, strict=True)
    ]
    return moved(torch.stack(found), base.device)


def _anchors(
    marks: Sequence[Tensor | None],
    recipe: Recipe,
    last: int,
    generator: torch.Generator,
    own: slice,
) -> Tensor:
    """Anchors of this process's rows, (own rows, anchors), where the recipe wants them.

    Those of all rows of the batch are drawn, so that each has the same in any process.

    Args:
        marks: Where markers end in each of these rows; none of a row that has them anywhere.
        recipe: Says how many there are, and where.
        last: The last place that has room.
        generator: Draws them.
        own: Which rows of the batch these are.
    """
    count, batch = recipe.objective.anchors, recipe.train.batch
    if recipe.objective.place == "every":
        return torch.arange(last + 1).expand(own.stop - own.start, -1)
    if recipe.objective.place == "uniform":
        return sample_anchors(batch, anchors=count, last=last, generator=generator)[own]
    seeds = torch.randint(1 << 62, (batch,), generator=generator)[own].tolist()
    wanted = max(1, round(count * recipe.objective.marked))
    others = sample_anchors(batch, anchors=count - wanted, last=last, generator=generator)[own]
    unmarked = sample_anchors(batch, anchors=count, last=last, generator=generator)[own]
    drawn = []
    for found, seed, anywhere, whole in zip(marks, seeds, others, unmarked, strict=True):
        if found is None:
            drawn.append(whole)
            continue
        fitting = found[found <= last]
        order = torch.randperm(len(fitting), generator=torch.Generator().manual_seed(seed))
        marked = fitting[order.repeat(-(-wanted // len(order)))[:wanted]]
        drawn.append(torch.cat([marked, anywhere]).sort().values)
    return torch.stack(drawn)
