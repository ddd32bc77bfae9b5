"""A request's body: of limited size, in limited time, UTF-8, and strict JSON.

bytes --limited--> bytes --read_json--> an object of finite numbers --parse--> what is asked
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from fastapi import Request
from starlette.types import Message, Receive

from deliberate.serve.refusals import ApiError, ClientGone
from deliberate.serve.service import Service
from deliberate.serve.wire import Asked, parse

_DISCARDED = 16
"""A body up to this many times the limit is read to its end before it is refused, so that the
client has sent it all and reads the refusal instead of a broken connection."""


def limited(receive: Receive, most: int, seconds: float) -> Receive:
    """A `receive` that refuses a body of more than `most` bytes, or that takes longer to come."""
    count, whole = 0, False
    until = asyncio.get_running_loop().time() + seconds

    async def further() -> Message:
        nonlocal count, whole
        try:
            async with asyncio.timeout_at(None if whole else until):
                message = await receive()
        except TimeoutError as error:
            raise ApiError(
                408, f"the body did not come within {seconds:g} s: send it again", code="timeout"
            ) from error
        whole = not message.get("more_body")
        count += len(message.get("body", b""))
        return message

    async def receive_limited() -> Message:
        message = await further()
        if count <= most:
            return message
        while not whole and count <= most * _DISCARDED:
            await further()
        raise ApiError(
            413,
            f"the request has more than {most} bytes, the most that this server takes: shorten it",
            code="request_too_large",
        )

    return receive_limited


async def read(request: Request, model: type[Asked], service: Service) -> Asked:
    """What a request asks.

    It is taken apart in a thread: of a large one, streams wait for a single call of json's or
    pydantic's at most, which hold the interpreter's lock, and no longer for all of it.

    Raises:
        ApiError: 408, 413, 415 or 400: too late, too large, not said to be JSON, not JSON, or a
            field that is wrong.
        ClientGone: the connection was closed before all of it came.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # also keeps other sites' pages from asking, who may send text
        raise ApiError(
            415, f"the content type is {kind!r} and must be 'application/json': set the header"
        )
    content = await _content(request.receive)
    return await service.blocking(lambda: parse(model, read_json(content)))


def read_json(content: bytes) -> dict[str, Any]:
    """A body's JSON object.

    Raises:
        ApiError: 400: it holds none.
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ApiError(400, f"the body is not UTF-8 at byte {error.start}") from error
    try:
        body = json.loads(text, parse_constant=_not_finite, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise ApiError(
            400, f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from error
    except (RecursionError, ValueError) as error:  # nested too deep; an integer of 5,000 digits
        raise ApiError(400, "the body is nested too deep or holds a number too long") from error
    if not isinstance(body, dict):
        raise ApiError(400, f"the body must be a JSON object, got {type(body).__name__}")
    return body


async def _content(receive: Callable[[], Awaitable[Message]]) -> bytes:
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


def _not_finite(name: str) -> NoReturn:
    raise ApiError(400, f"the body holds {name}, which is not a number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in {float("inf"), float("-inf")}:
        raise ApiError(400, f"the body holds {digits[:40]}, which is too large for a number")
    return number
