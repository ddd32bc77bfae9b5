"""Asking the coprocessor's worker: whether a cache is worth it, and once however many ask.

plain cache --gate--> Thinker.ask --on its thread--> a future of this loop
"""

import asyncio
import time
from collections.abc import Callable

from deliberate.core.cache import Cache
from deliberate.core.gate import asks
from deliberate.serve.outcome import Outcome
from deliberate.serve.service import Service

_WAITED = 0.5
"""Share of the time that a request has left for which it waits for latents at most: the base needs
the rest for its answer."""


class Asking:
    """The coprocessor's worker, as requests see it."""

    def __init__(self, service: Service) -> None:
        self._service = service

    @property
    def possible(self) -> bool:
        """Whether there is a coprocessor to ask."""
        return self._service.thinker_state() != "absent"

    def ask(self, name: str, *, urgent: bool) -> "asyncio.Future[None]":
        """Have a stored cache thought over, once however many ask.

        Args:
            name: Of the cache.
            urgent: Whether an answer may still profit from it.

        Returns:
            Done when the store has what came of it.

        Raises:
            NoSuchCacheError: it was deleted.
            QueueFullError: too many caches wait for the coprocessor.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()

        def finished() -> None:
            if not future.done():
                future.set_result(None)

        self._service.thinker.ask(name, lambda _: _unless_closed(loop, finished), urgent=urgent)
        return future

    async def patience(
        self, work: "asyncio.Future[None]", outcome: Outcome, *, deadline: float
    ) -> None:
        """Wait for work to end, for as long as a request may wait for latents.

        Args:
            work: Brings them.
            outcome: Told how long it took, and why they did not come.
            deadline: When the request must have ended, by the loop's clock.
        """
        began = time.monotonic()
        left = max(0.0, deadline - asyncio.get_running_loop().time())
        limit = min(self._service.settings.wait_seconds, _WAITED * left)
        await asyncio.wait({work}, timeout=limit)
        if not work.done():
            state = self._service.thinker_state()
            outcome.reason = f"they did not come within {limit:.3g} s: the coprocessor is {state}"
        outcome.waited_seconds = round(time.monotonic() - began, 4)

    async def worthwhile(self, cache: Cache, outcome: Outcome) -> bool:
        """Whether the base is uncertain enough at a text's end that latents are worth their cost.

        Source: arXiv:2412.17747, section 1: "if a given cache is deemed not to require extra
        computation"; the paper does not say by what. Here by the next token's entropy.
        """
        gate = self._service.settings.gate
        if not gate:
            return True
        outcome.entropy = await self._service.blocking(self._service.entropy, cache)
        if asks(outcome.entropy, gate):
            return True
        outcome.latents = "skipped"
        outcome.reason = f"the next token's entropy is below the gate of {gate} nats"
        return False


def _unless_closed(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Call a function on a loop, from a thread that may outlive it."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(function)
