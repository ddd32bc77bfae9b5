"""`POST /v1/compare`: how much latents change the probability of each token of an answer.

prompt --> plain cache, augmented cache --answer's tokens each--> two log-probabilities a token
"""

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from fastapi import APIRouter, Request
from jaxtyping import Float, Int
from torch import Tensor

from deliberate.core.base import Base
from deliberate.core.batch import Batch
from deliberate.core.cache import Cache
from deliberate.serve.body import read
from deliberate.serve.connection import unless_gone
from deliberate.serve.deliberation import Deliberation
from deliberate.serve.limits import within
from deliberate.serve.prompts import prompts
from deliberate.serve.refusals import ApiError
from deliberate.serve.service import Service
from deliberate.serve.token_texts import BEFORE, added
from deliberate.serve.wire import CompareRequest

_SLICE = 256
"""Tokens that are scored at once, as many as the engine reads at once by default: others have their
turn in between, and a long answer times a large vocabulary is never in memory."""


@torch.no_grad()
def score(
    base: Base,
    cache: Cache,
    token_ids: Int[Tensor, " token"],
    lock: AbstractContextManager[None],
) -> Float[Tensor, " token"]:
    """Log-probability of each token, the cache and the tokens before it given.

    Args:
        base: Made the cache.
        cache: Left as it was.
        token_ids: At least one.
        lock: Held for a slice of the tokens at a time.
    """
    batch, tip, scores = Batch([cache]), cache.tip[None], []
    for part in token_ids.split(_SLICE):
        with lock:
            hidden = batch.feed(base.trunk, base.embed(part[None]))[0]
            chances = base.logits(torch.cat([tip, hidden[:-1]])).float().log_softmax(-1)
        scores.append(chances.gather(1, part[:, None])[:, 0])
        tip = hidden[-1:]
    return torch.cat(scores)


def texts(base: Base, token_ids: list[int]) -> list[str]:
    """What each token adds to those before it; nothing while a character is unfinished."""
    return [
        added(base, token_ids[max(0, at - BEFORE) : at], [token])[0]
        for at, token in enumerate(token_ids)
    ]


def compare(service: Service, deliberation: Deliberation) -> APIRouter:
    """The address, for a service."""
    router = APIRouter()

    @router.post("/v1/compare")
    async def both(request: Request) -> dict[str, Any]:
        asked = await read(request, CompareRequest, service)
        service.check_model(asked.model)
        work = _Comparison(service, deliberation, asked).result()
        return await unless_gone(request.receive, work)

    return router


class _Comparison:
    def __init__(self, service: Service, deliberation: Deliberation, asked: CompareRequest) -> None:
        self._service, self._deliberation, self._asked = service, deliberation, asked

    async def result(self) -> dict[str, Any]:
        service, asked = self._service, self._asked
        deadline = service.deadline()
        async with (
            service.admission.admitted(deadline),
            within(deadline, "its answer was compared"),
        ):
            prompt, answer = await service.blocking(self._tokens)
            start = partial(self._deliberation.start, prompt, named=asked.cache, deadline=deadline)
            plain = await start("never")
            thought = await start(asked.deliberate or "wait")
            self._check_room(max(plain.cache.next_position, thought.cache.next_position), answer)
            without = await service.blocking(self._scores, plain.cache, answer)
            outcome = thought.outcome
            used = outcome.latents == "used"
            changed = await service.blocking(self._scores, thought.cache, answer) if used else None
            said = await service.blocking(texts, service.base, answer.tolist())
        tokens = [
            {"id": number, "text": text, "without": before, "with": after}
            for number, text, before, after in zip(
                answer.tolist(), said, without, changed or [None] * len(said), strict=True
            )
        ]
        return {
            "object": "comparison",
            "model": service.settings.name,
            "tokens": tokens,
            "deliberate": outcome.to_dict(),
        }

    def _tokens(self) -> tuple[Tensor, Tensor]:
        """The prompt's and the answer's.

        Raises:
            ApiError: 400: one of them is none.
        """
        base, asked = self._service.base, self._asked
        [prompt] = prompts(base, asked.prompt, further=asked.cache is not None)
        [answer] = prompts(base, asked.answer, further=True, field="answer")
        if not len(answer):
            raise ApiError(400, "the answer is empty: give at least one character", param="answer")
        return prompt, answer

    def _check_room(self, read: int, answer: Tensor) -> None:
        positions = self._service.base.positions
        if positions is not None and read + len(answer) > positions:
            raise ApiError(
                400,
                f"the answer has {len(answer)} tokens and {self._service.settings.name!r} has room "
                f"for {positions - read} after this prompt: shorten one of them",
                param="answer",
                code="context_length_exceeded",
            )

    def _scores(self, cache: Cache, answer: Tensor) -> list[float]:
        engine = self._service.engine
        return score(engine.base, cache, answer, engine.lock).tolist()
