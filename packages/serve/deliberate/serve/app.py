"""The app: addresses, and how their failures are told."""

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from deliberate.core.errors import TextError
from deliberate.serve.answering import Answering
from deliberate.serve.caches import caches
from deliberate.serve.chat import chat
from deliberate.serve.compare import compare
from deliberate.serve.completions import completions
from deliberate.serve.deliberation import Deliberation
from deliberate.serve.edge import Edge
from deliberate.serve.operations import operations
from deliberate.serve.page import page
from deliberate.serve.refusals import ApiError, as_error
from deliberate.serve.service import Service
from deliberate.serve.store_errors import NoSuchCacheError


def create_app(service: Service) -> FastAPI:
    """The app of a service; other sites' pages may not use it, since no CORS header is sent."""
    # Its pages of documentation load scripts from elsewhere; docs/serving.md has the addresses.
    app = FastAPI(title="deliberate", openapi_url=None, docs_url=None, redoc_url=None)
    deliberation = Deliberation(service)
    answering = Answering(service, deliberation)
    for router in (
        completions(service, answering),
        chat(service, answering),
        caches(service, deliberation),
        compare(service, deliberation),
        operations(service),
        page(),
    ):
        app.include_router(router)
    for kind in (ApiError, HTTPException, NoSuchCacheError, TextError):
        app.add_exception_handler(kind, _refused)
    app.add_middleware(Edge, service=service)
    return app


async def _refused(_: Request, error: Exception) -> JSONResponse:
    return as_error(error).response()
