"""Around every request: its id, host and key, its size, the count, the log, and what fails unseen.

request --id, host, key, size--> app --> response with the id --> one line of the log
"""

import logging
import time
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deliberate.serve.body import limited
from deliberate.serve.limits import check_host, check_key
from deliberate.serve.logs import LOGGER, log, request_id
from deliberate.serve.refusals import ApiError, ClientGone, as_error
from deliberate.serve.service import Service

GONE = 499
"""In log and metrics: the client closed the connection before its answer ended."""

_POLLED = {"/health", "/ready", "/metrics", "/v1/caches"}
"""What machines and the page ask for again and again, and the log need not tell."""


class Edge:
    """The outermost layer of the app."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a request in, and see it out."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        call = _Call(scope, send, request_id(headers.get("x-request-id")))
        try:
            settings = self._service.settings
            check_host(headers, settings)
            check_key(scope["path"], headers, settings.api_key)
            received = limited(receive, settings.max_body_bytes, settings.timeout_seconds)
            await self._app(scope, received, call.send)
        except ClientGone:
            call.status = GONE
        except Exception as error:
            if not isinstance(error, ApiError):
                LOGGER.log(
                    logging.ERROR, "request failed", exc_info=True, extra={"fields": call.fields}
                )
            if not call.begun:
                await as_error(error).response()(scope, receive, call.send)
        finally:
            self._count(call)

    def _count(self, call: "_Call") -> None:
        metrics, seconds = self._service.metrics, time.monotonic() - call.asked_at
        metrics.requests.labels(call.route, str(call.status)).inc()
        metrics.seconds.labels(call.route).observe(seconds)
        quiet = call.route in _POLLED and call.fields["method"] == "GET" and call.status == 200
        log(
            "request",
            level=logging.DEBUG if quiet else logging.INFO,
            **call.fields,
            status=call.status,
            seconds=round(seconds, 4),
        )


class _Call:
    """One request on its way through."""

    def __init__(self, scope: Scope, send: Send, name: str) -> None:
        self.asked_at = time.monotonic()
        self.begun = False
        self.status = GONE
        self._scope, self._send, self._name = scope, send, name

    @property
    def route(self) -> str:
        """The address's pattern: what clients may write freely is not counted one by one."""
        return getattr(self._scope.get("route"), "path", "other")

    @property
    def fields(self) -> dict[str, Any]:
        """For the log."""
        client = self._scope.get("client") or ("",)
        return {
            "request_id": self._name,
            "method": self._scope["method"],
            "route": self.route,
            "client": client[0],
            **self._scope.get("noted", {}),
        }

    async def send(self, message: Message) -> None:
        """Send, with the request's id."""
        if message["type"] == "http.response.start":
            self.begun, self.status = True, message["status"]
            MutableHeaders(scope=message)["x-request-id"] = self._name
        await self._send(message)
