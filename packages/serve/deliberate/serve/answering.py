"""From a request to its response, for completions and conversations alike.

a turn --prompts' tokens--> Start each --decode--> pieces --Form--> one response, or a stream
"""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ClassVar

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from torch import Tensor

from deliberate.core.sampling import COLDEST, SEEDS, Sampling
from deliberate.serve.connection import EventStream, side_by_side, unless_gone
from deliberate.serve.decoding import Row, decode, usage
from deliberate.serve.deliberation import Deliberation
from deliberate.serve.engine import Piece
from deliberate.serve.limits import within
from deliberate.serve.outcome import Start
from deliberate.serve.refusals import ApiError
from deliberate.serve.service import Service
from deliberate.serve.wire import ChatRequest, CompletionRequest


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a request comes to, whichever address it came to."""

    asked: CompletionRequest | ChatRequest
    """Its fields."""

    count: int
    """How many prompts there are."""

    prompts: Callable[[], Sequence[Tensor]]
    """Makes each one's tokens, which takes a while where they are long."""

    logprobs: int
    """Alternatives told of each token; -1 tells nothing."""

    max_tokens: int | None
    """The most decoded for each answer; none is as many as there is room for."""

    whole: bool
    """Whether prompts repeat the text of the cache that is named."""

    field: str
    """Of the request, that holds the prompts."""


class Form(ABC):
    """The shape of an address's responses."""

    prefix: ClassVar[str]
    """What its ids begin with."""

    whole: ClassVar[str]
    """Name of a response."""

    chunk: ClassVar[str]
    """Name of a piece of a stream."""

    @abstractmethod
    def choice(self, row: Row) -> dict[str, Any]:
        """One whole answer."""

    @abstractmethod
    def delta(self, row: Row, piece: Piece) -> dict[str, Any]:
        """What an answer has grown by."""


class Answering:
    """Answers requests with a service's engine."""

    def __init__(self, service: Service, deliberation: Deliberation) -> None:
        self._service, self._deliberation = service, deliberation

    async def answer(self, request: Request, wanted: Wanted, form: Form) -> Response:
        """The response to a request whose body was read and found right.

        Raises:
            ApiError: it is refused or fails before its first token.
            ClientGone: nobody waits for it any more.
        """
        self._check_choices(wanted)
        answer = _Answer(self._service, self._deliberation, wanted, form)
        request.scope["noted"] = answer.noted
        if not wanted.asked.stream:
            return JSONResponse(await unless_gone(request.receive, answer.whole()))
        events = answer.events()
        try:
            first = await unless_gone(request.receive, anext(events))
        except BaseException:
            await events.aclose()
            raise
        return EventStream(events, first, deadline=answer.deadline)

    def _check_choices(self, wanted: Wanted) -> None:
        choices = wanted.count * (wanted.asked.n or 1)
        most = self._service.settings.max_choices
        if choices > most:
            raise ApiError(
                400,
                f"{_prompts(wanted.count)} with n={wanted.asked.n or 1} would have {choices} "
                f"answers, and this server gives at most {most} at once: ask for fewer",
                param="n",
            )


class _Answer:
    def __init__(
        self, service: Service, deliberation: Deliberation, wanted: Wanted, form: Form
    ) -> None:
        self._service, self._deliberation = service, deliberation
        self._wanted, self._form = wanted, form
        self.deadline = service.deadline()
        """By the loop's clock."""
        self._starts: list[Start] = []
        self._rows: list[Row] = []
        self.noted: dict[str, Any] = {}
        """What the log tells of it."""
        self._head = {
            "id": f"{form.prefix}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": service.settings.name,
        }

    async def whole(self) -> dict[str, Any]:
        """All answers at once."""
        async with aclosing(self._pieces()) as pieces:
            async for _ in pieces:
                pass
        choices = [
            {**self._form.choice(row), "deliberate": row.outcome().to_dict()} for row in self._rows
        ]
        for choice, row in zip(choices, self._rows, strict=True):
            if self._wanted.asked.return_token_ids:
                choice["token_ids"] = [token.id for token in row.tokens]
        return {
            **self._head,
            "object": self._form.whole,
            "choices": choices,
            "usage": usage(self._rows, self._starts),
            "deliberate": choices[0]["deliberate"],
        }

    async def events(self) -> AsyncGenerator[dict[str, Any]]:
        """The answers as they grow; the last event of each says what became of its latents."""
        head = {**self._head, "object": self._form.chunk}
        counted = {"usage": None} if self._wanted.asked.counts_usage else {}
        async with aclosing(self._pieces()) as pieces:
            async for row, piece in pieces:
                if not (piece.text or piece.finish or self._tells(piece)):
                    continue
                choice = self._form.delta(row, piece)
                if self._wanted.asked.return_token_ids:
                    choice["token_ids"] = [token.id for token in piece.tokens]
                ended = {"deliberate": row.outcome().to_dict()} if piece.finish else {}
                yield {**head, "choices": [choice], **counted, **ended}
        if counted:
            yield {**head, "choices": [], "usage": usage(self._rows, self._starts)}

    def _tells(self, piece: Piece) -> bool:
        asked = self._wanted
        return bool(piece.tokens) and (asked.logprobs >= 0 or bool(asked.asked.return_token_ids))

    async def _pieces(self) -> AsyncGenerator[tuple[Row, Piece]]:
        service, asked_at = self._service, time.monotonic()
        deadline = self.deadline
        async with service.admission.admitted(deadline):
            await self._begin(deadline)
            answers = decode(service, self._rows, deadline=deadline, asked_at=asked_at)
            async with aclosing(answers):
                async for row, piece in answers:
                    self._note()
                    yield row, piece

    async def _begin(self, deadline: float) -> None:
        """Read the prompts, which wait for their latents side by side.

        Raises:
            ApiError: 400: a prompt is none; 504: the time was over; or what `Deliberation.start`
                refuses.
        """
        wanted, metrics = self._wanted, self._service.metrics
        async with within(deadline, "its prompt was read"):
            prompts = await self._service.blocking(wanted.prompts)
            self._starts += await side_by_side(
                self._deliberation.start(
                    prompt,
                    wanted.asked.deliberate or "auto",
                    deadline=deadline,
                    named=wanted.asked.cache,
                    whole=wanted.whole,
                    field=wanted.field,
                )
                for prompt in prompts
            )
        for start in self._starts:
            metrics.prompt_tokens.inc(start.tokens)
            metrics.cached_tokens.inc(start.cached)
        copies = [start for start in self._starts for _ in range(wanted.asked.n or 1)]
        seed = secrets.randbelow(SEEDS) if wanted.asked.seed is None else wanted.asked.seed
        self._rows += [
            Row(
                index=index,
                start=start,
                sampling=self._sampling(start, (seed + index) % SEEDS),
                logprobs=wanted.logprobs,
            )
            for index, start in enumerate(copies)
        ]

    def _note(self) -> None:
        counts = usage(self._rows, self._starts)
        self.noted |= {
            "prompt_tokens": counts["prompt_tokens"],
            "cached_tokens": counts["prompt_tokens_details"]["cached_tokens"],
            "generated_tokens": counts["completion_tokens"],
            "latents": self._rows[0].outcome().latents,
        }

    def _sampling(self, start: Start, seed: int) -> Sampling:
        asked, most = self._wanted.asked, self._wanted.max_tokens
        positions = self._service.base.positions
        # The last token is not read and needs no position, but clients count it to `max_model_len`.
        room = 2**31 if positions is None else positions - start.cache.next_position
        temperature = 1.0 if asked.temperature is None else asked.temperature
        return Sampling(
            max_tokens=max(1, room if most is None else min(most, room)),
            temperature=temperature if temperature >= COLDEST else 0.0,
            top_p=1.0 if asked.top_p is None else asked.top_p,
            stop=asked.stops,
            seed=seed,
        )


def _prompts(count: int) -> str:
    return "1 prompt" if count == 1 else f"{count} prompts"
