"""Answers as the engine decodes them, brought from its thread into this event loop.

Row, Row, … --Engine.submit--> pieces, in the order in which they come
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from deliberate.core.generate import Sampling
from deliberate.serve.engine import ClosedError, Piece, Request, Ticket, Token
from deliberate.serve.logs import log
from deliberate.serve.outcome import Outcome, Start
from deliberate.serve.refusals import SOON, STOPPED, ApiError
from deliberate.serve.service import Service
from deliberate.serve.vllm_wire import RemoteError


@dataclass(kw_only=True)
class Row:
    """One answer, and what has been decoded of it."""

    index: int
    """Number of the choice in its response."""

    start: Start
    """Where it begins."""

    sampling: Sampling
    """How its tokens are chosen."""

    logprobs: int
    """Alternatives told of each token; -1 tells nothing."""

    text: str = ""
    """What is certain of its text."""

    tokens: list[Token] = field(default_factory=list)
    """What was decoded."""

    finish: str | None = None
    """Why it ended, once it has."""

    late_after: int | None = None
    """Tokens decoded when late latents came."""

    timed_out: bool = False
    """Whether its time was over."""

    ticket: Ticket | None = None
    """Its place in the engine, while it is decoded."""

    last: float = 0.0
    """When its last token came, in seconds of the monotonic clock."""

    def take(self, piece: Piece) -> None:
        """Add what has come."""
        self.text += piece.text
        self.tokens.extend(piece.tokens)
        self.finish = piece.finish
        if piece.late_after is not None:
            self.late_after = piece.late_after

    def outcome(self) -> Outcome:
        """What became of its latents."""
        outcome = replace(self.start.outcome, timed_out=self.timed_out)
        if self.late_after is not None:
            # Those that came before the first token came in time.
            outcome.latents = "late" if self.late_after else "used"
            outcome.late_after, outcome.reason = self.late_after or None, ""
        return outcome


async def decode(
    service: Service, rows: Sequence[Row], *, deadline: float, asked_at: float
) -> AsyncGenerator[tuple[Row, Piece]]:
    """Decode answers, all at once; what nobody waits for any more is cancelled.

    Args:
        service: Whose engine is used.
        rows: Grow while this runs.
        deadline: By the loop's clock; answers that have begun end there by their length.
        asked_at: When the request came, by the monotonic clock.

    Raises:
        ApiError: 500, 502, 503 or 504: decoding failed, here or elsewhere, was stopped, or did not
            begin in time.
    """
    pieces: asyncio.Queue[tuple[Row, Piece]] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    try:
        for row in rows:
            row.ticket = _submit(service, row, _hand_over(loop, pieces, row))
        while any(row.finish is None for row in rows):
            try:
                async with asyncio.timeout_at(deadline):
                    row, piece = await pieces.get()
            except TimeoutError:
                for ended in _out_of_time(rows):
                    yield ended
                break
            _check(piece)
            _measure(service, row, piece, asked_at)
            row.take(piece)
            yield row, piece
        for row in rows:
            service.metrics.latents.labels(row.outcome().latents).inc()
    finally:
        for row in rows:
            if row.ticket is not None and row.finish is None:
                row.ticket.cancel()
            # Its place in the engine holds whom to tell, and that holds this row: a reference cycle
            # that would keep the prompt's cache until a full collection, many answers later.
            row.ticket = None


def _submit(service: Service, row: Row, on_piece: Callable[[Piece], None]) -> Ticket:
    request = Request(
        token_ids=torch.empty(0, dtype=torch.long, device=service.base.device),
        cache=row.start.cache,
        sampling=row.sampling,
        logprobs=row.logprobs,
        late=row.start.late,
    )
    try:
        return service.engine.submit(request, on_piece)
    except ClosedError as error:
        raise ApiError(503, STOPPED, code="stopping", retry_after=SOON) from error


def _hand_over(
    loop: asyncio.AbstractEventLoop, pieces: "asyncio.Queue[tuple[Row, Piece]]", row: Row
) -> Callable[[Piece], None]:
    """What the engine's thread calls; it may still run when the loop has been closed."""

    def on_piece(piece: Piece) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(pieces.put_nowait, (row, piece))

    return on_piece


def _out_of_time(rows: Sequence[Row]) -> list[tuple[Row, Piece]]:
    """End what has begun; if nothing has, there is no answer.

    Raises:
        ApiError: 504.
    """
    if not any(row.tokens for row in rows):
        raise ApiError(
            504, "the time of this request was over before its first token", code="timeout"
        )
    ended = []
    for row in rows:
        if row.finish is None:
            assert row.ticket is not None
            row.ticket.cancel()
            row.timed_out = True
            piece = Piece(text="", tokens=[], finish="length")
            row.take(piece)
            ended.append((row, piece))
    return ended


def _check(piece: Piece) -> None:
    error = piece.error
    if error is not None:
        reason = f"{type(error).__name__}: {error}"
        log("decoding failed", level=logging.ERROR, reason=reason)
    if piece.finish == "cancelled":
        raise ApiError(503, STOPPED, code="stopping", retry_after=SOON)
    if isinstance(error, RemoteError):
        raise ApiError(
            502, "the vLLM server failed in the middle of this answer: ask again", code="engine"
        )
    if piece.finish == "failed":
        raise ApiError(500, "decoding failed: the server's log says why", code="internal")


def _measure(service: Service, row: Row, piece: Piece, asked_at: float) -> None:
    if not piece.tokens:
        return
    now = time.monotonic()
    if row.tokens:
        service.metrics.between.observe((now - row.last) / len(piece.tokens))
    else:
        service.metrics.to_first.observe(now - asked_at)
    row.last = now
    service.metrics.generated_tokens.inc(len(piece.tokens))


def usage(rows: Sequence[Row], starts: Sequence[Start]) -> dict[str, Any]:
    """Tokens of a response, as OpenAI counts them.

    Args:
        rows: All answers.
        starts: One a prompt: what several answers share is counted once.
    """
    prompt = sum(start.tokens for start in starts)
    completion = sum(len(row.tokens) for row in rows)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": sum(start.cached for start in starts)},
    }
