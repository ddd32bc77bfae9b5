"""Refusals as OpenAI's clients expect them: `{"error": {message, type, param, code}}`.

ApiError, or what was raised --as_error--> status, headers, error object
"""

from typing import Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from deliberate.core.errors import TextError
from deliberate.serve.store_errors import NoSuchCacheError

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}


class ApiError(Exception):
    """A request that is refused or failed, with what its sender is told."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.headers = {} if retry_after is None else {"retry-after": str(retry_after)}
        if status == 401:
            self.headers["www-authenticate"] = "Bearer"

    def body(self) -> dict[str, Any]:
        """The error object."""
        kind = _TYPES.get(self.status, "server_error")
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        """The whole answer."""
        return JSONResponse(self.body(), status_code=self.status, headers=self.headers)


STOPPED = "the server stopped before the answer ended: come again later"
"""What is told of an answer that the server's end cut short, with 503."""

SOON = 5
"""Seconds after which to come again where that is all that is known."""


class ClientGone(Exception):
    """Whoever asked has closed the connection: nobody reads an answer."""


def as_error(error: Exception) -> ApiError:
    """What the sender is told of an exception; what it may not know becomes a plain 500."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        return _from_routing(error)
    if isinstance(error, TextError):
        return ApiError(400, str(error))
    if isinstance(error, NoSuchCacheError):  # looked up, and gone before it was used
        return ApiError(404, str(error), code="cache_not_found")
    return ApiError(500, "the server failed on this request: its log says why", code="internal")


def _from_routing(error: HTTPException) -> ApiError:
    messages = {
        404: "there is nothing at this address: see the paths under /v1 in docs/serving.md",
        405: "this address takes another method: see docs/serving.md",
    }
    found = ApiError(error.status_code, messages.get(error.status_code, str(error.detail)))
    found.headers |= dict(error.headers or {})
    return found
