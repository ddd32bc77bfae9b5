"""Questions and answers as what a run learns from and is validated on.

    data.question, data.answer --> tokenized pairs that fit --seeded order--> padded batches

The loss of a step is the mean over the answers' tokens of all its rows, in whatever parts and
by however many processes they are worked off.

Source: arXiv:2412.17747, section A.2.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from deliberate.core.base import Base
from deliberate.core.measure import Passage
from deliberate.core.pairs import (
    PairFormat,
    Room,
    fitting,
    hold_out_pairs,
    pair_passages,
    read_pairs,
    tokenize_pairs,
)
from deliberate.train.batch import Batch
from deliberate.train.processes import Processes, is_first
from deliberate.train.recipe import Recipe

_log = logging.getLogger(__name__)


def load_pairs(recipe: Recipe, base: Base, form: PairFormat) -> Dataset:
    """Tokenized pairs to learn from, with columns `token_ids` and `anchor`.

    Raises:
        TextError: they cannot be read, or none fits.
    """
    data = recipe.data
    pairs = read_pairs(data.train, form)
    if data.validation is None:
        pairs, _ = hold_out_pairs(pairs, data.train)
    return _fitting(pairs, recipe, base, form, ahead=recipe.objective.ahead, source=data.train)


def load_pair_passages(recipe: Recipe, base: Base, form: PairFormat) -> list[Passage]:
    """Held-out pairs for validation.

    Raises:
        TextError: they cannot be read, or none fits.
    """
    data = recipe.data
    source = data.validation or data.train
    if data.validation is not None:
        pairs = read_pairs(source, form, split="validation")
    else:
        _, pairs = hold_out_pairs(read_pairs(source, form), source)
    rows = _fitting(
        pairs, recipe, base, form, ahead=recipe.eval.ahead, source=f"{source} (held out)"
    )
    return pair_passages(rows, limit=recipe.eval.texts)


def pair_batches(
    parts: Sequence[Mapping[str, Any]], recipe: Recipe, base: Base, *, share: Processes
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
        size = len(counts)
        own = slice(share.rank * size // share.count, (share.rank + 1) * size // share.count)
        anchors, ahead = torch.tensor(part["anchor"][own]), int(counts[own].max())
        real = torch.arange(ahead) < counts[own, None]
        # No further than the last token that a loss is on.
        width = int(anchors.max()) + recipe.objective.delay + ahead + 1
        yield Batch(
            token_ids=_cut(part["token_ids"][own], width).to(base.device),
            anchors=anchors[:, None].to(base.device),
            weights=(scale * real[:, None]).to(base.device),
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
    if left_out and is_first():
        _log.warning(
            "%s of the %s pairs of %r left out: they do not fit data.length = %s",
            f"{left_out:,}",
            f"{len(rows):,}",
            source,
            room.length,
        )
    return kept


def _reach(part: Mapping[str, Any], recipe: Recipe) -> Tensor:
    """How many tokens of each answer the loss is taken on."""
    ends = torch.tensor([len(ids) for ids in part["token_ids"]])
    answers = ends - 1 - torch.tensor(part["anchor"])
    return (answers - recipe.objective.delay).clamp(max=recipe.objective.ahead)


def _cut(rows: Sequence[Sequence[int]], width: int) -> Tensor:
    """Rows of one width, longer ones cut; nothing reads what shorter ones are padded with."""
    cut = torch.zeros(len(rows), width, dtype=torch.long)
    for row, ids in zip(cut, rows, strict=True):
        row[: len(ids)] = torch.tensor(ids[:width])
    return cut
