"""What those who run the server ask it: alive, ready, how much, which model."""

import os
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from deliberate.serve.service import Service


def operations(service: Service) -> APIRouter:
    """The addresses, for a service."""
    router = APIRouter()

    @router.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    @router.get("/ready")
    async def ready() -> Response:
        found = {
            "model": service.settings.name,
            "accepting": not service.admission.closing,
            "store_writable": await service.blocking(_writable, service),
            "thinker": service.thinker_state(),
        }
        right = bool(found["accepting"] and found["store_writable"])
        return JSONResponse({"ready": right, **found}, status_code=200 if right else 503)

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(service.metrics.page(), media_type=CONTENT_TYPE_LATEST)

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(service)]}

    @router.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        service.check_model(name)
        return _model(service)

    return router


def _model(service: Service) -> dict[str, Any]:
    base = service.base
    return {
        "id": service.settings.name,
        "object": "model",
        "created": service.started,
        "owned_by": "deliberate",
        "max_model_len": base.positions,
        "chat": bool(base.tokenizer.chat_template),
        "thinker": service.thinker_state(),
    }


def _writable(service: Service) -> bool:
    """Whether a cache could be stored now."""
    return os.access(service.store.folder, os.W_OK | os.X_OK)
