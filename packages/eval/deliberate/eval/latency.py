"""How long latents take, and how many tokens the base decodes in that time.

cache --augment--> seconds, cache --a token at a time--> seconds a token
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from deliberate.core.augment import augment, check_room
from deliberate.core.base import Base
from deliberate.core.cache import Batch, Cache
from deliberate.core.coprocessor import Coprocessor

REPEATS = 15
"""Times that each of the two is measured, in turn, so that what else a machine does meets both."""

WARM = 3
"""Times before that, which do not count."""

DECODED = 8
"""Tokens decoded at a time, or as many as there are positions for."""


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
def measure_latency(base: Base, coprocessor: Coprocessor, cache: Cache) -> Latency:
    """Time the latents after a question, and the base that decodes from it.

    Args:
        base: Made the cache.
        coprocessor: Writes the latents.
        cache: A question's, plain; left as it was.

    Raises:
        CacheError: there is no room for latents.
        TextError: there is no room for a token.
    """
    check_room(base, cache, 1)
    room = DECODED if base.positions is None else base.positions - cache.next_position
    steps = min(DECODED, room)
    latents, tokens = [], []
    for number in range(WARM + REPEATS):
        thinking = _seconds(base, lambda: augment(base, coprocessor, [cache]))
        decoding = _seconds(base, lambda: _decode(base, cache, steps))
        if number >= WARM:
            latents.append(thinking)
            tokens.append(decoding / steps)
    return Latency(latents_seconds=median(latents), token_seconds=median(tokens))


def _decode(base: Base, cache: Cache, steps: int) -> None:
    """What greedy decoding does, whatever it says."""
    batch, hidden = Batch([cache]), cache.tip[None]
    for _ in range(steps):
        token = base.logits(hidden).argmax(-1)
        hidden = batch.feed(base.trunk, base.embed(token[:, None]))[:, -1]
        token.tolist()  # as decoding looks at each


def _seconds(base: Base, work: Callable[[], object]) -> float:
    _wait(base)
    start = time.perf_counter()
    work()
    _wait(base)
    return time.perf_counter() - start


def _wait(base: Base) -> None:
    """For a device that works on by itself."""
    if base.device.type == "cuda":
        torch.cuda.synchronize(base.device)
