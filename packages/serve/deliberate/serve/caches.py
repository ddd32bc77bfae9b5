"""`/v1/caches`: texts that are read, and thought over, before anyone asks about them."""

import re
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from torch import Tensor

from deliberate.core.base import Base
from deliberate.serve.body import read
from deliberate.serve.connection import unless_gone
from deliberate.serve.deliberation import Deliberation
from deliberate.serve.entry import Entry
from deliberate.serve.limits import within
from deliberate.serve.prompts import conversation, text_tokens
from deliberate.serve.refusals import ApiError
from deliberate.serve.service import Service
from deliberate.serve.store_errors import NoSuchCacheError, OfflineWorkError
from deliberate.serve.wire import CacheRequest

_MOST_TOLD = 1000
"""Caches that are told of at once: a store holds many more, and nobody is answered meanwhile."""


def caches(service: Service, deliberation: Deliberation) -> APIRouter:
    """The addresses, for a service."""
    router = APIRouter()

    @router.post("/v1/caches")
    async def keep(request: Request) -> Response:
        asked = await read(request, CacheRequest, service)
        service.check_model(asked.model)
        if (asked.text is None) == (asked.messages is None):
            raise ApiError(400, "give either 'text' or 'messages'", param="text")

        async def kept() -> tuple[str, bool, Any]:
            deadline = service.deadline()
            async with service.admission.admitted(deadline), within(deadline, "its text was read"):
                tokens = await service.blocking(_tokens, service.base, asked)
                field = "text" if asked.messages is None else "messages"
                return await deliberation.keep(
                    tokens, asked.deliberate or "auto", deadline=deadline, field=field
                )

        name, new, outcome = await unless_gone(request.receive, kept())
        shown = _shown(deliberation.lookup.entry(name)) | {"deliberate": outcome.to_dict()}
        return JSONResponse(shown, status_code=201 if new else 200)

    @router.get("/v1/caches")
    async def every(limit: str = "100", after: str = "") -> dict[str, Any]:
        most = _limit(limit)
        entries = await service.blocking(_listed, service, most + 1, after)
        usage = service.store.usage
        return {
            "object": "list",
            "data": [_shown(entry) for entry in entries[:most]],
            "has_more": len(entries) > most,
            "total": usage.caches,
            "augmented": usage.augmented,
        }

    @router.get("/v1/caches/{name}")
    async def one(name: str) -> dict[str, Any]:
        return _shown(deliberation.lookup.entry(name))

    @router.delete("/v1/caches/{name}")
    async def delete(name: str) -> dict[str, Any]:
        deliberation.lookup.entry(name)
        try:
            await service.blocking(service.store.delete, name)
            service.thinker.cancel(name)
        except OfflineWorkError as error:
            raise ApiError(
                409,
                f"cache {name!r} was made beforehand and not by this server: remove "
                f"{error.names} from the store's folder",
            ) from error
        return {"id": name, "object": "cache.deleted", "deleted": True}

    return router


def _listed(service: Service, most: int, after: str) -> list[Entry]:
    """Caches that follow one.

    Raises:
        ApiError: 400: that one is not there, and nobody knows which would follow it.
    """
    try:
        return service.store.entries(most, after=after)
    except NoSuchCacheError as error:
        raise ApiError(
            400,
            f"there is no cache {after[:64]!r}, or none any more, to list others after: begin "
            "again without 'after'",
            param="after",
            code="cache_not_found",
        ) from error


def _limit(limit: str) -> int:
    """How many caches are told of.

    Raises:
        ApiError: 400: not a number from 1 to the most.
    """
    if not re.fullmatch("[0-9]{1,4}", limit) or not 1 <= int(limit) <= _MOST_TOLD:
        raise ApiError(
            400, f"limit must be from 1 to {_MOST_TOLD}, got {limit[:40]!r}", param="limit"
        )
    return int(limit)


def _tokens(base: Base, asked: CacheRequest) -> Tensor:
    if asked.messages is not None:
        return conversation(base, asked.messages, asks=False)
    return text_tokens(base, asked.text or "", further=False, field="text")


def _shown(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "object": "cache",
        "state": entry.state,
        "reason": entry.reason,
        "tokens": entry.tokens,
        "latents": entry.latents,
        "bytes": entry.bytes,
        "tier": entry.tier,
        "used": entry.used,
    }
