"""A service behind a port, until it is told to stop.

Service --create_app--> uvicorn; SIGTERM or Ctrl-C --> refuses, finishes what runs, ends
"""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Callable
from types import FrameType

import uvicorn

from deliberate.serve.app import create_app
from deliberate.serve.freed import give_back
from deliberate.serve.logs import log
from deliberate.serve.service import Service
from deliberate.serve.store_errors import StoreError

REFRESH_TICKS = 50
"""Tenths of a second after which files that came into the store's folder are taken up."""

GIVE_BACK_TICKS = 100
"""Tenths of a second after which freed memory goes back to the system."""

_KEEP_ALIVE = 75
"""Seconds after which an idle connection is closed: well after clients are told to come again with
it, and after common clients close it themselves, or a request would meet the closing and fail."""

_LAST_WORDS = 5
"""Seconds for responses to be sent once decoding has been ended."""


class Server(uvicorn.Server):
    """Stops gracefully: new requests are refused while those that run are finished."""

    def __init__(self, service: Service, *, on_ready: Callable[[], None] | None = None) -> None:
        config = uvicorn.Config(
            create_app(service),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=_LAST_WORDS,
            lifespan="on",
        )
        super().__init__(config)
        self._service, self._on_ready = service, on_ready
        self._told: list[str] = []
        self._until = 0.0
        self._refresh: asyncio.Task[None] | None = None
        self._giving: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer, and say so."""
        await super().startup(sockets)
        if self._on_ready is not None:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take the signal: the first one begins to stop, a second one ends what runs."""
        del frame
        self._told.append(signal.Signals(sig).name)

    def stop(self, reason: str) -> None:
        """Refuse what comes from now on, and end when nothing runs or the time is over."""
        self._told.append(reason)

    async def on_tick(self, counter: int) -> bool:
        """Look, ten times a second, whether it is time to end, and for files that came."""
        if await super().on_tick(counter):
            return True
        if counter % REFRESH_TICKS == 0 and (self._refresh is None or self._refresh.done()):
            self._refresh = asyncio.create_task(self._take_up_files())
        if counter % GIVE_BACK_TICKS == 0:
            self._giving = asyncio.create_task(asyncio.to_thread(give_back))
        return bool(self._told) and await self._ended()

    async def _ended(self) -> bool:
        admission = self._service.admission
        if not admission.closing:
            admission.closing = True
            self._until = time.monotonic() + self._service.settings.drain_seconds
            log("stopping", reason=self._told[0], running=admission.running)
        if admission.idle:
            return True
        if time.monotonic() < self._until and len(self._told) == 1:
            return False
        await asyncio.to_thread(self._service.engine.close, 0.0)
        return True

    async def _take_up_files(self) -> None:
        try:
            await self._service.blocking(self._service.take_up)
        except (OSError, StoreError) as error:  # the next time may be better
            log("store not refreshed", level=logging.WARNING, reason=type(error).__name__)


def run(
    service: Service, listening: socket.socket, *, on_ready: Callable[[], None] | None = None
) -> None:
    """Answer requests until SIGTERM or Ctrl-C, and end with nothing lost.

    Args:
        service: Closed at the end.
        listening: From `listening.listen`.
        on_ready: Called when requests are answered.
    """
    try:
        Server(service, on_ready=on_ready).run(sockets=[listening])
    finally:
        service.close()
        log("stopped")
