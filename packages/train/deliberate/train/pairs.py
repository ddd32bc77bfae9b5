"""Questions and answers as what a run learns from and is validated on.

    data.question, data.answer --> tokenized pairs that fit --seeded order--> padded batches

The loss of a step is the mean over the answers' tokens of all its rows, in whatever parts and
by however many processes they are worked off.

Source: arXiv:2412.17747, section A.2.
"""

import logging
from collections.abc import Iterator, Sequence

import torch
from datasets import Dataset
from torch import Tensor

from deliberate.core.base import Base
from deliberate.core.pairs import (
    PairFormat,
    Room,
    fitting,
    hold_out_pairs,
    pair_passages,
    read_pairs,
    tokenize_pairs,
    validation_pairs,
)
from deliberate.core.passages import Passage
from deliberate.core.sources import Source
from deliberate.train.batch import Batch, moved
from deliberate.train.processes import Processes
from deliberate.train.recipe import Recipe
from deliberate.train.rows import Row

_log = logging.getLogger(__name__)


def load_pairs(source: Source, recipe: Recipe, base: Base, form: PairFormat) -> Dataset:
    """A source's tokenized pairs to learn from, with columns `token_ids` and `anchor`.

    Raises:
        TextError: they cannot be read, or none fits.
    """
    pairs = read_pairs(source, form)
    if recipe.data.validation is None:
        pairs, _ = hold_out_pairs(pairs, source.path)
    return _fitting(pairs, recipe, base, form, ahead=recipe.objective.ahead, source=source.path)


def load_pair_passages(recipe: Recipe, base: Base, form: PairFormat) -> list[Passage]:
    """Held-out pairs for validation.

    Raises:
        TextError: they cannot be read, or none fits.
    """
    named, pairs = validation_pairs(recipe.data.train, recipe.data.validation, form)
    rows = _fitting(pairs, recipe, base, form, ahead=recipe.eval.ahead, source=named)
    return pair_passages(rows, limit=recipe.eval.texts)


def pair_batches(
    parts: Sequence[Sequence[Row]], recipe: Recipe, base: Base, *, share: Processes
) -> Iterator[Batch]:
    """This process's share of the batches of one optimizer step.

    Args:
        parts: The rows of each batch, all of them known to every process.
        recipe: Says how many tokens of each answer are learned.
        base: On whose device they are wanted.
        share: This process among the others.
    """
    reach = [_reach(part, recipe) for part in parts]
    # Losses are averaged over parts and processes afterwards, as where all have as many targets.
    scale = share.count * len(parts) / sum(int(each.sum()) for each in reach)
    for part, counts in zip(parts, reach, strict=True):
        own = share.share_of(len(counts))
        anchors = torch.stack([row["anchor"] for row in part[own]])
        ahead = int(counts[own].max())
        real = torch.arange(ahead) < counts[own, None]
        # No further than the last token that a loss is on.
        width = int(anchors.max()) + recipe.objective.delay + ahead + 1
        yield Batch(
            token_ids=moved(_cut([row["token_ids"] for row in part[own]], width), base.device),
            anchors=moved(anchors[:, None], base.device),
            weights=moved(scale * real[:, None], base.device),
        )


def _fitting(
    pairs: Dataset, recipe: Recipe, base: Base, form: PairFormat, *, ahead: int, source: str
) -> Dataset:
    """The pairs that fit, tokenized; says how many did not."""
    rows = tokenize_pairs(pairs, base.tokenizer, form)
    room = Room(
        length=recipe.data.length,
        latents=recipe.coprocessor.latents,
        ahead=ahead,
        delay=recipe.objective.delay,
        positions=base.positions,
    )
    kept = fitting(rows, room, source=source)
    left_out = len(rows) - len(kept)
    if left_out:
        _log.warning(
            "%s of the %s pairs of %r left out: they do not fit data.length = %s",
            f"{left_out:,}",
            f"{len(rows):,}",
            source,
            room.length,
        )
    return kept


def _reach(part: Sequence[Row], recipe: Recipe) -> Tensor:
    """How many tokens of each answer the loss is taken on."""
    answers = torch.tensor([len(row["token_ids"]) - 1 - int(row["anchor"]) for row in part])
    return (answers - recipe.objective.delay).clamp(max=recipe.objective.ahead)


def _cut(rows: Sequence[Tensor], width: int) -> Tensor:
    """Rows of one width, longer ones cut; nothing reads what shorter ones are padded with."""
    cut = torch.zeros(len(rows), width, dtype=torch.long)
    for row, ids in zip(cut, rows, strict=True):
        row[: len(ids)] = ids[:width]
    return cut
