"""Who is let in: by name and API key, how many at once, and nobody once the server stops.

request --check_host, check_key--> --Admission.admitted--> answered, or told when to come again
"""

import asyncio
import hmac
import ipaddress
import math
import re
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.datastructures import Headers

from deliberate.serve.refusals import ApiError
from deliberate.serve.settings import Settings

_OPEN = {"/", "/health", "/ready"}
"""Addresses that need no key: they tell nothing of anyone's texts."""

_PATIENCE = (1, 60)
"""Fewest and most seconds after which a refused client is told to come again."""


def check_host(headers: Headers, settings: Settings) -> None:
    """Refuse what another name led to a server that only this machine reaches and asks for no key.

    Another site's name may be made to lead here, and its pages then ask as if they were ours: "DNS
    rebinding". Programs that send no name at all are no pages.

    Raises:
        ApiError: 403.
    """
    if settings.api_key or not _is_loopback(settings.host):
        return
    for given in headers.getlist("host"):
        name = re.sub(r":[0-9]*$", "", given)
        if not _is_loopback(name):
            raise ApiError(
                403,
                f"this server is not called {name[:64]!r}: ask it at localhost, or start it with "
                "--api-key",
                code="unknown_host",
            )


def _is_loopback(name: str) -> bool:
    """Whether an address, an IPv6 one also in brackets, is of this machine alone."""
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def check_key(path: str, headers: Headers, key: str) -> None:
    """Refuse a request without the key, in a time that tells nothing of it.

    Raises:
        ApiError: 401.
    """
    if not key or path in _OPEN:
        return
    given = headers.get("authorization", "")
    scheme, _, secret = given.partition(" ")
    right = hmac.compare_digest(secret.strip().encode(), key.encode())
    if scheme.lower() != "bearer" or not right:
        raise ApiError(
            401,
            "the API key is missing or wrong: send the header 'Authorization: Bearer KEY'",
            code="invalid_api_key",
        )


@asynccontextmanager
async def within(deadline: float, doing: str) -> AsyncGenerator[None]:
    """Let the block run until a request's time is over.

    Args:
        deadline: By the loop's clock.
        doing: What is done in the block, for the message.

    Raises:
        ApiError: 504: it did not end in time, and was cancelled.
    """
    try:
        async with asyncio.timeout_at(deadline):
            yield
    except TimeoutError as error:
        raise ApiError(
            504, f"the time of this request was over while {doing}", code="timeout"
        ) from error


class Admission:
    """So many requests at once, so many that wait for their turn, and a door that closes."""

    def __init__(self, concurrent: int, queue: int) -> None:
        self.running = 0
        self.waiting = 0
        self.closing = False
        self._concurrent, self._queue = concurrent, queue
        self._free = asyncio.Semaphore(concurrent)
        self._usual = 1.0  # seconds that a request took lately

    @asynccontextmanager
    async def admitted(self, deadline: float) -> AsyncGenerator[None]:
        """Wait for a turn, and hold it while the block runs.

        Args:
            deadline: By the loop's clock; later there is no turn.

        Raises:
            ApiError: 429, 503 or 504: too many wait, the server stops, or the time is over.
        """
        self.check_open()
        if self._free.locked() and self.waiting >= self._queue:
            raise ApiError(
                429,
                f"{self._concurrent} requests are answered and {self.waiting} wait, the most "
                "that this server takes: come again later",
                code="queue_full",
                retry_after=self._soon(),
            )
        self.waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                await self._free.acquire()
        except TimeoutError as error:
            raise ApiError(
                504, "the time of this request was over before its turn came", code="timeout"
            ) from error
        finally:
            self.waiting -= 1
        self.running += 1
        began = time.monotonic()
        try:
            yield
        finally:
            self.running -= 1
            self._usual += 0.1 * (time.monotonic() - began - self._usual)
            self._free.release()

    def check_open(self) -> None:
        """Refuse what comes once the server stops.

        Raises:
            ApiError: 503.
        """
        if self.closing:
            raise ApiError(
                503, "the server is stopping: come again later", code="stopping", retry_after=5
            )

    @property
    def idle(self) -> bool:
        """Whether nothing runs and nothing waits."""
        return not self.running and not self.waiting

    def _soon(self) -> int:
        fewest, most = _PATIENCE
        turns = (self.waiting + 1) / self._concurrent
        return min(most, max(fewest, math.ceil(self._usual * turns)))
