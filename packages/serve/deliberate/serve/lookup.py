"""Which stored cache a prompt goes on from: the one it names, or the longest that it begins with.

token ids [+ cache id] --find--> Found: a cache, and the tokens that are still to be read
"""

import logging
from dataclasses import dataclass

from torch import Tensor

from deliberate.core.cache import Cache
from deliberate.serve.entry import Entry
from deliberate.serve.logs import log
from deliberate.serve.refusals import ApiError
from deliberate.serve.served import placed
from deliberate.serve.service import Service
from deliberate.serve.store_errors import NoSuchCacheError, OverBudgetError

_CALLED = {"prompt": "prompt", "text": "text", "messages": "conversation"}
"""What the fields that hold a text are called in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A stored beginning of a prompt, if there is one."""

    id: str | None
    """Of the stored cache."""

    cache: Cache | None
    """Over the beginning, with or without latents."""

    rest: Tensor
    """Tokens of the prompt that follow it."""

    @property
    def cached(self) -> int:
        """Tokens that need not be read."""
        return 0 if self.cache is None else len(self.cache.token_ids)

    @property
    def tokens(self) -> int:
        """Tokens of the whole prompt."""
        return self.cached + len(self.rest)


class Lookup:
    """Finds stored caches for prompts."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def find(self, token_ids: Tensor, *, field: str) -> Found:
        """The longest stored beginning of a prompt; one that cannot be read counts as none.

        Args:
            token_ids: The prompt.
            field: Of the request, that holds it.

        Raises:
            ApiError: 400: the prompt is empty, or longer than the base's positions.
        """
        lookups = self._service.metrics.lookups
        match = await self._service.blocking(self._longest, token_ids)
        if match is None:
            lookups.labels("miss").inc()
            return self._checked(Found(id=None, cache=None, rest=token_ids), field)
        name, cache, tier = match
        lookups.labels(tier).inc()
        rest = token_ids[len(cache.token_ids) :]
        return self._checked(Found(id=name, cache=cache, rest=rest), field)

    async def named(self, name: str, token_ids: Tensor, *, whole: bool, field: str) -> Found:
        """The cache of that name and what follows it.

        Args:
            name: As the store gave it.
            token_ids: What follows; with `whole`, the cache's text and what follows.
            whole: Whether the cache's text is repeated.
            field: Of the request, that holds what follows.

        Raises:
            ApiError: 400 or 404: there is none, or the text is another, empty or too long.
        """
        tier = self.entry(name).tier
        cache = await self._service.blocking(self.open, name)
        self._service.metrics.lookups.labels(tier).inc()
        if whole:
            held = len(cache.token_ids)
            if not token_ids[:held].equal(cache.token_ids):
                raise ApiError(
                    400,
                    f"the text of cache {name!r} is not how these messages begin: leave out "
                    "'cache', or name another",
                    param="cache",
                )
            token_ids = token_ids[held:]
        return self._checked(Found(id=name, cache=cache, rest=token_ids), field)

    def open(self, name: str) -> Cache:
        """A stored cache.

        Raises:
            ApiError: 404 or 503: there is none of that name, or it cannot be read now.
        """
        try:
            return placed(self._service.store.get(name), self._service.base.device)
        except NoSuchCacheError as error:
            raise ApiError(404, _missing(name), param="cache", code="cache_not_found") from error
        except OSError as error:
            log("cache not readable", level=logging.ERROR, cache=name, reason=short(error))
            raise ApiError(
                503,
                f"the cache {name!r} cannot be read at the moment: come again later",
                param="cache",
                retry_after=5,
            ) from error

    def entry(self, name: str) -> Entry:
        """What the store knows of a cache.

        Raises:
            ApiError: 404: there is none of that name.
        """
        try:
            return self._service.store.entry(name)
        except NoSuchCacheError as error:
            raise ApiError(404, _missing(name), param="cache", code="cache_not_found") from error

    def _longest(self, token_ids: Tensor) -> tuple[str, Cache, str] | None:
        """The longest stored beginning whose file is whole: id, cache and where it was."""
        store = self._service.store
        while match := store.match(token_ids):
            try:
                tier = store.entry(match[0]).tier
                return match[0], placed(store.get(match[0]), self._service.base.device), tier
            except NoSuchCacheError:  # its file was damaged or gone, and is no longer matched
                continue
            except OSError as error:  # the text can be read anew
                log("cache not readable", level=logging.ERROR, reason=short(error))
                return None
        return None

    def has_room(self, cache: Cache, rest: Tensor) -> bool:
        """Whether the rest and one more token fit after a cache as it is, latents included."""
        positions = self._service.base.positions
        return positions is None or cache.next_position + len(rest) < positions

    def _checked(self, found: Found, field: str) -> Found:
        positions = self._service.base.positions
        what = _CALLED[field]
        if not found.tokens:
            raise ApiError(400, f"the {what} is empty: give at least one character", param=field)
        if positions is not None and found.tokens >= positions:
            raise ApiError(
                400,
                f"the {what} has {found.tokens} tokens and {self._service.settings.name!r} reads "
                f"at most {positions - 1} before its answer: shorten it",
                param=field,
                code="context_length_exceeded",
            )
        return found


def short(error: Exception) -> str:
    """What failed, without the path that a message may hold."""
    if isinstance(error, OverBudgetError):
        return str(error)
    reasons = (getattr(each, "strerror", None) for each in (error, error.__cause__))
    return next(filter(None, reasons), type(error).__name__)


def _missing(name: str) -> str:
    return f"there is no cache {name[:64]!r}: see GET /v1/caches, or post its text"
