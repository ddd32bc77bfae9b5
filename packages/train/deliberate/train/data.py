"""The rows a run learns from and the passages it is validated on.

data.train --> documents --> packed rows --seeded order--> batches
data.validation, held-out modules, or the last documents --> passages
"""

import hashlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from deliberate.core.base import Base
from deliberate.core.errors import DeliberateError, TextError
from deliberate.core.groups import last_anchor, sample_anchors
from deliberate.core.measure import Passage, passages
from deliberate.core.texts import documents, hold_out, pack
from deliberate.train.batch import Batch
from deliberate.train.pairs import load_pair_passages, load_pairs, pair_batches
from deliberate.train.processes import Processes
from deliberate.train.recipe import Recipe


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
                f"{f' or objective.delay ({delay})' if delay else ''} lower"
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


def load_rows(recipe: Recipe, base: Base) -> Dataset:
    """Packed rows of the training texts, or rows of a question and its answer.

    Raises:
        TextError: there is not one full row.
    """
    data = recipe.data
    if data.pairs is not None:
        return load_pairs(recipe, base, data.pairs)
    texts = documents(data.train, split="train", field=data.field)
    if data.validation is None:
        texts, _ = hold_out(texts, data.train, field=data.field)
    markers = recipe.objective.markers or ()
    rows = pack(texts, base.tokenizer, length=data.length, markers=markers)
    if not len(rows):
        raise TextError(
            f"{data.train!r} has less than data.length = {data.length} tokens to train on: "
            "give more text, or a smaller data.length"
        )
    if markers:
        rows = _marked(rows, recipe, base)
    return rows.with_format("torch")


def _marked(rows: Dataset, recipe: Recipe, base: Base) -> Dataset:
    """The rows that have a marker where an anchor has room.

    Raises:
        TextError: none has.
    """
    last = _last_anchor(recipe, base)
    marked = rows.filter(lambda row: bool(row["marks"]) and row["marks"][0] <= last)
    if not len(marked):
        raise TextError(
            f"no row of {recipe.data.train!r} holds a marker of objective.markers "
            f"({', '.join(map(repr, recipe.objective.markers or ()))}) with room behind it: name "
            "strings that are in the texts"
        )
    return marked


def _last_anchor(recipe: Recipe, base: Base) -> int:
    objective = recipe.objective
    return last_anchor(
        recipe.data.length,
        latents=recipe.coprocessor.latents,
        ahead=objective.ahead,
        limit=base.positions,
        delay=objective.delay,
    )


def fingerprint_of_rows(rows: Dataset) -> str:
    """Identifies the token ids of rows, their order, and where questions end."""
    digest = hashlib.sha256(f"{len(rows)} rows".encode())
    for part in rows.with_format("arrow").iter(batch_size=1000):
        for chunk in part["token_ids"].chunks:
            digest.update(chunk.flatten().to_numpy(zero_copy_only=False).astype("<i8").tobytes())
        if "anchor" in rows.column_names:
            digest.update(part["anchor"].to_numpy().astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def load_passages(recipe: Recipe, base: Base) -> list[Passage]:
    """Held-out passages for validation."""
    data = recipe.data
    if data.pairs is not None:
        return load_pair_passages(recipe, base, data.pairs)
    if data.validation is not None:
        texts = documents(data.validation, split="validation", field=data.field)
    else:
        texts = documents(data.train, split="train", field=data.field)
        _, texts = hold_out(texts, data.train, field=data.field)
    return passages(
        texts,
        base.tokenizer,
        length=data.length,
        least=recipe.eval.ahead + recipe.objective.delay + 2,
        limit=recipe.eval.texts,
    )


def batches(
    rows: Dataset, recipe: Recipe, base: Base, *, step: int, share: Processes
) -> Iterator[Batch]:
    """This process's share of the batches of one optimizer step.

    The batches are a function of the recipe and the step alone, so that a resumed run sees what
    the uninterrupted one would have, and two processes what one would.
    """
    size, parts = recipe.train.batch, recipe.train.accumulate
    order = [
        [_row_at(first + offset, len(rows), recipe.train.seed) for offset in range(size)]
        for first in range(step * parts * size, (step + 1) * parts * size, size)
    ]
    if recipe.data.pairs is not None:
        yield from pair_batches([rows[index] for index in order], recipe, base, share=share)
        return
    generator = torch.Generator().manual_seed(recipe.train.seed * 1_000_003 + step)
    last = _last_anchor(recipe, base)
    for index in order:
        chosen = rows[index]
        anchors = _anchors(chosen, recipe, last, generator)
        own = slice(share.rank * size // share.count, (share.rank + 1) * size // share.count)
        yield Batch(
            token_ids=chosen["token_ids"][own].to(base.device), anchors=anchors[own].to(base.device)
        )


def _anchors(
    rows: Mapping[str, Any], recipe: Recipe, last: int, generator: torch.Generator
) -> Tensor:
    """Anchors of some rows, (batch, anchors), where the recipe wants them."""
    count, batch = recipe.objective.anchors, len(rows["token_ids"])
    if recipe.objective.place == "every":
        return torch.arange(last + 1).expand(batch, -1)
    if recipe.objective.place == "uniform":
        return sample_anchors(batch, anchors=count, last=last, generator=generator)
    drawn = []
    for marks in rows["marks"]:
        fitting = marks[marks <= last]
        order = torch.randperm(len(fitting), generator=generator)
        drawn.append(fitting[order.repeat(-(-count // len(order)))[:count]].sort().values)
    return torch.stack(drawn)


def _row_at(position: int, count: int, seed: int) -> int:
    """The row at a position of the endless stream of reshuffled epochs."""
    epoch, offset = divmod(position, count)
    return _order(epoch, count, seed)[offset]


@lru_cache(maxsize=2)
def _order(epoch: int, count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return torch.randperm(count, generator=generator).tolist()
