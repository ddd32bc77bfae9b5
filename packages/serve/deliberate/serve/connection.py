"""A client's connection: work ends when it is closed, and streams are told as events.

work --unless_gone--> its result, or cancelled
works --side_by_side--> their results, or all cancelled
events --EventStream--> `data: {…}` lines, then `data: [DONE]`
"""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Coroutine, Iterable
from typing import Any, TypeVar

from fastapi import Response
from starlette.types import Receive, Scope, Send

from deliberate.serve.logs import LOGGER
from deliberate.serve.refusals import ApiError, ClientGone, as_error

Result = TypeVar("Result")

_LAST_WORDS = 5.0
"""Seconds in which a client must take what is still to be said once its request's time is over."""


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """Do some work, and cancel it as soon as the client closes the connection.

    Args:
        receive: Of a request whose body has been read.
        work: What the client waits for.

    Raises:
        ClientGone: the connection was closed first.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)
        # A failure holds this frame, and the task that failure: a reference cycle around all that
        # the work was done with.
        del task, gone


async def side_by_side(works: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Do several works at once; the first one to fail cancels the others, and its error is raised.

    Returns:
        Their results, in the works' order.
    """
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        del task, tasks  # as above


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """A response of server-sent events; the generator behind it is closed in any case."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[dict[str, Any]], first: dict[str, Any], *, deadline: float
    ) -> None:
        """Begin with `first`, which has come already: what fails before it has a status.

        Args:
            events: The others; end by themselves at the deadline.
            first: The first event.
            deadline: By the loop's clock. A client that does not take its events until a little
                later counts as gone: it must not hold its turn for ever.
        """
        super().__init__(headers={"cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events, self._first, self._until = events, first, deadline + _LAST_WORDS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events as they come.

        Raises:
            ClientGone: the connection was closed, or the client does not read.
        """
        try:
            async with asyncio.timeout_at(self._until):
                await unless_gone(receive, self._send_all(send))
        except TimeoutError as error:
            raise ClientGone from error
        finally:
            await self._events.aclose()

    async def _send_all(self, send: Send) -> None:
        async def write(text: str, *, more: bool = True) -> None:
            message = {"type": "http.response.body", "body": text.encode(), "more_body": more}
            await send(message)

        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        try:
            await write(_event(self._first))
            async for event in self._events:
                await write(_event(event))
        except Exception as error:  # the status is sent: the failure goes where the text went
            if not isinstance(error, ApiError):
                LOGGER.log(logging.ERROR, "stream failed", exc_info=True)
            await write(_event(as_error(error).body()), more=False)
        else:
            await write("data: [DONE]\n\n", more=False)


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
