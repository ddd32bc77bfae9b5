"""How long latents take, and how many tokens the base decodes in that time.

question --base--> cache --augment--> seconds
                         --a token at a time--> seconds a token
"""

import math
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch
from jaxtyping import Int
from torch import Tensor

from deliberate.core.augment import augment, check_room
from deliberate.core.base import Base
from deliberate.core.batch import Batch
from deliberate.core.cache import Cache, caches
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.memory import within_memory
from deliberate.eval.clock import in_turn

REPEATS = 15
"""Timed turns, after one that is not timed."""

DECODED = 8
"""Tokens decoded at a time, or as many as there are positions for."""

WAY_OUT = "ask fewer --steps, --dtype bfloat16, or another device"
"""What to do where the memory is too small for a single question."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """What was measured, of one question at a time; medians."""

    latents_seconds: float
    """To write latents over a cache, and to have the base read them."""

    token_seconds: float
    """For the base to choose a token and read it."""

    @property
    def tokens(self) -> int:
        """How many tokens the base decodes while the latents are made: one begun counts."""
        return max(1, math.ceil(self.latents_seconds / self.token_seconds))


@torch.no_grad()
def measure_latency(
    base: Base, coprocessor: Coprocessor, question: Int[Tensor, " token"]
) -> Latency:
    """Time the latents after a question that was read, and the base that decodes from it.

    Args:
        base: Reads the question.
        coprocessor: Writes the latents, from what the base keeps of the question or, where it
            reads more, from what the base just read.
        question: From `tokenize`.

    Raises:
        CacheError: there is no room for latents.
        DeliberateError: the memory is too small.
        TextError: there is no room for a token.
    """
    with within_memory(f"timing latents after {len(question)} tokens", WAY_OUT):
        reading = base.read(question[None])
        plain = caches(reading, [len(question)], origin=base.origin)
        check_room(base, plain[0], 1)
        room = DECODED if base.positions is None else base.positions - plain[0].next_position
        steps = min(DECODED, room)
        read = None if coprocessor.reads_caches else reading
        runs = {
            "latents": partial(augment, base, coprocessor, plain, reading=read),
            "tokens": partial(_decode, base, plain[0], steps),
        }
        seconds = in_turn(runs, repeats=REPEATS, device=base.device)
    return Latency(
        latents_seconds=median(seconds["latents"]), token_seconds=median(seconds["tokens"]) / steps
    )


def _decode(base: Base, cache: Cache, steps: int) -> None:
    """What greedy decoding does, whatever it says."""
    batch, hidden = Batch([cache]), cache.tip[None]
    for _ in range(steps):
        token = base.logits(hidden).argmax(-1)
        hidden = batch.feed(base.trunk, base.embed(token[:, None]))[:, -1]
        token.tolist()  # as decoding looks at each
