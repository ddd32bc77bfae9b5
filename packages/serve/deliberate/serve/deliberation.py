"""Which cache an answer goes on from, and what becomes of its latents.

    prompt --named, or longest stored beginning--> cache --read the rest--> Start, decoded at once
                                                     |
                  its entropy passes the gate --> the coprocessor, in the background
                                                     |
              latents: taken up mid-answer (auto), waited for (wait), or never asked for (never)

Whatever the coprocessor does or fails to do, the answer is at worst the base's own.

Source: arXiv:2412.17747, abstract and section 1: offline, asynchronously, or not at all.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from torch import Tensor

from deliberate.core.cache import Cache
from deliberate.core.errors import DeliberateError
from deliberate.serve.asking import Asking
from deliberate.serve.engine import ClosedError
from deliberate.serve.logs import log
from deliberate.serve.lookup import Found, Lookup, short
from deliberate.serve.outcome import Late, Outcome, Start
from deliberate.serve.refusals import SOON, STOPPED, ApiError
from deliberate.serve.service import Service
from deliberate.serve.store_errors import NoSuchCacheError
from deliberate.serve.thinker import QueueFullError
from deliberate.serve.wire import Mode


class Deliberation:
    """Brings prompts, stored caches and the coprocessor's worker together."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.lookup = Lookup(service)
        self._asking = Asking(service)
        self._background: set[asyncio.Task[None]] = set()

    async def start(
        self,
        token_ids: Tensor,
        mode: Mode,
        *,
        deadline: float,
        named: str | None = None,
        whole: bool = False,
        field: str = "prompt",
    ) -> Start:
        """Read a prompt, from a stored beginning where there is one, and see to its latents.

        Args:
            token_ids: The prompt; with `named`, what follows that cache and possibly nothing.
            mode: What is wanted of latents.
            deadline: When the request must have ended, by the loop's clock.
            named: A stored cache.
            whole: Whether the prompt repeats the named cache's text.
            field: Of the request, that holds the prompt.

        Raises:
            ApiError: 400 or 404: too long, empty, or no such cache.
        """
        if named is None:
            found = await self.lookup.find(token_ids, field=field)
        else:
            found = await self.lookup.named(named, token_ids, whole=whole, field=field)
        outcome = Outcome(mode=mode, cache=found.id)
        if mode == "never":
            outcome.latents = "never"
        elif found.cache is not None and found.cache.latents is not None:
            if self._fits(found.cache, found.rest, outcome):
                return _begun(found, await self._read(found.rest, found.cache), outcome)
        elif not self._asking.possible:
            outcome.latents = "absent"
        elif named is None:
            return await self._of_prompt(found, outcome, deadline)
        else:
            return await self._of_named(found, named, outcome, deadline)
        return _begun(found, await self._plain(found), outcome)

    async def keep(
        self, token_ids: Tensor, mode: Mode, *, deadline: float, field: str
    ) -> tuple[str, bool, Outcome]:
        """Store the cache of a text, and have it thought over.

        Args:
            token_ids: The text.
            mode: What is wanted of latents.
            deadline: When the request must have ended, by the loop's clock.
            field: Of the request, that holds the text.

        Returns:
            Its id, whether it is new, and what became of its latents so far.

        Raises:
            ApiError: 400, 429 or 507: empty, too long, stored but too many wait to be thought
                over, or it cannot be stored.
        """
        found = await self.lookup.find(token_ids, field=field)
        outcome = Outcome(mode=mode)
        new = found.id is None or len(found.rest) > 0
        plain = await self._plain(found)
        try:
            put = self._service.store.put
            name = await self._service.blocking(put, plain, decided=mode == "never")
        except (OSError, DeliberateError) as error:
            log("cache not stored", level=logging.ERROR, reason=short(error))
            raise ApiError(507, f"the cache cannot be stored: {short(error)}") from error
        outcome.cache = name
        if self.lookup.entry(name).state == "augmented":
            outcome.latents = "used"
        elif mode == "never":
            outcome.latents = "never"
        elif not self._asking.possible:
            outcome.latents = "absent"
        elif not await self._asking.worthwhile(plain, outcome):
            self._service.store.decide(name)
        else:
            try:
                asked = self._asking.ask(name, urgent=mode == "wait")
            except QueueFullError as error:
                raise ApiError(429, str(error), code="queue_full", retry_after=SOON) from error
            if mode == "wait":
                await self._asking.patience(asked, outcome, deadline=deadline)
            entry = self.lookup.entry(name)
            if entry.state == "augmented":
                outcome.latents = "used"
            elif entry.state == "failed":
                outcome.latents, outcome.reason = "failed", entry.reason
        return name, new, outcome

    async def _of_prompt(self, found: Found, outcome: Outcome, deadline: float) -> Start:
        """No cache was named: the latents wanted are those at the prompt's end."""
        plain = await self._plain(found)
        if not await self._asking.worthwhile(plain, outcome):
            return _begun(found, plain, outcome)
        late = Late(behind=0)
        thinking = self._in_background(self._store_and_follow(plain, outcome, late))
        if outcome.mode == "wait":
            await self._asking.patience(thinking, outcome, deadline=deadline)
            if late.cache is not None:
                fits = self._fits(late.cache, found.rest[:0], outcome)
                return _begun(found, late.cache if fits else plain, outcome)
        return _begun(found, plain, outcome, late)

    async def _of_named(self, found: Found, name: str, outcome: Outcome, deadline: float) -> Start:
        """The latents wanted are those of the cache that was named, at its own end."""
        assert found.cache is not None
        if self.lookup.entry(name).state == "failed":
            outcome.latents, outcome.reason = "failed", self.lookup.entry(name).reason
            return _begun(found, await self._plain(found), outcome)
        if not await self._asking.worthwhile(found.cache, outcome):
            self._service.store.decide(name)
            return _begun(found, await self._plain(found), outcome)
        late = Late(behind=len(found.rest))
        thinking = self._in_background(self._follow(name, outcome, late))
        if outcome.mode == "wait":
            await self._asking.patience(thinking, outcome, deadline=deadline)
            if late.cache is not None:
                if self._fits(late.cache, found.rest, outcome):
                    return _begun(found, await self._read(found.rest, late.cache), outcome)
                return _begun(found, await self._plain(found), outcome)
        return _begun(found, await self._plain(found), outcome, late)

    def _fits(self, cache: Cache, rest: Tensor, outcome: Outcome) -> bool:
        """Whether an answer goes on from latents that are there, and why not."""
        if self.lookup.has_room(cache, rest):
            outcome.latents = "used"
            return True
        outcome.latents, outcome.reason = "skipped", "no room is left beside the latents"
        return False

    async def _store_and_follow(self, plain: Cache, outcome: Outcome, late: Late) -> None:
        store = self._service.store
        try:
            name = await self._service.blocking(store.put, plain)
            del plain  # many may wait for their latents, and only the store has a budget
            entry = store.entry(name)
        except (OSError, DeliberateError) as error:
            log("cache not stored", level=logging.ERROR, reason=short(error))
            outcome.latents = "failed"
            outcome.reason = f"the cache cannot be stored: {short(error)}"
            return
        outcome.cache = name
        if entry.state == "failed":
            outcome.latents, outcome.reason = "failed", entry.reason
        else:
            await self._follow(name, outcome, late)

    async def _follow(self, name: str, outcome: Outcome, late: Late) -> None:
        """See what comes of one cache's latents."""
        store = self._service.store
        try:
            if store.entry(name).state != "augmented":
                await self._asking.ask(name, urgent=outcome.mode == "wait")
            entry = store.entry(name)
            if entry.state == "augmented":
                late.cache = await self._service.blocking(self.lookup.open, name)
            elif entry.state == "failed":
                outcome.latents, outcome.reason = "failed", entry.reason
        except QueueFullError as error:
            outcome.reason = str(error)
        except (NoSuchCacheError, ApiError):
            outcome.latents, outcome.reason = "failed", "the cache is gone"

    async def _plain(self, found: Found) -> Cache:
        """Over the whole prompt without latents, whatever is stored."""
        text = None if found.cache is None else found.cache.text_part()
        return await self._read(found.rest, text)

    async def _read(self, rest: Tensor, cache: Cache | None) -> Cache:
        try:  # as a future and not in a thread: where nobody waits any more, reading ends
            return await asyncio.wrap_future(self._service.engine.reading(rest, cache))
        except ClosedError as error:
            raise ApiError(503, STOPPED, code="stopping", retry_after=SOON) from error

    def _in_background(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


def _begun(found: Found, cache: Cache, outcome: Outcome, late: Late | None = None) -> Start:
    return Start(cache=cache, tokens=found.tokens, cached=found.cached, outcome=outcome, late=late)
