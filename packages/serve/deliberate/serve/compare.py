"""`POST /v1/compare`: how much latents change the probability of each token of an answer.

prompt --> plain cache, augmented cache --answer's tokens each--> two log-probabilities a token
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from fastapi import APIRouter, Request
from jaxtyping import Float, Int
from torch import Tensor

from deliberate.core.base import Base
from deliberate.core.cache import Batch, Cache
from deliberate.serve.body import read_json
from deliberate.serve.connection import unless_gone
from deliberate.serve.deliberation import Deliberation
from deliberate.serve.prompts import prompts
from deliberate.serve.refusals import ApiError
from deliberate.serve.service import Service
from deliberate.serve.wire import CompareRequest, parse

_BEFORE = 8
"""Tokens before one that may change what it says."""


@torch.no_grad()
def score(base: Base, cache: Cache, token_ids: Int[Tensor, " token"]) -> Float[Tensor, " token"]:
    """Log-probability of each token, the cache and the tokens before it given."""
    hidden = cache.tip[None]
    if len(token_ids) > 1:
        fed = Batch([cache]).feed(base.trunk, base.embed(token_ids[None, :-1]))[0]
        hidden = torch.cat([hidden, fed])
    chances = base.logits(hidden).float().log_softmax(-1)
    return chances.gather(1, token_ids[:, None])[:, 0]


def texts(base: Base, token_ids: list[int]) -> list[str]:
    """What each token adds to the text of those before it; nothing while a character is unfinished.

    Not its own text: many tokenizers drop the space before a token that stands alone.
    """
    decode = cast(Callable[[list[int]], str], base.tokenizer.decode)
    found = []
    for at in range(len(token_ids)):
        first = max(0, at - _BEFORE)
        before = decode(token_ids[first:at])
        after = decode(token_ids[first : at + 1])
        finished = not after.endswith("\ufffd")
        found.append(after[len(before.rstrip("\ufffd")) :] if finished else "")
    return found


def compare(service: Service, deliberation: Deliberation) -> APIRouter:
    """The address, for a service."""
    router = APIRouter()

    @router.post("/v1/compare")
    async def both(request: Request) -> dict[str, Any]:
        asked = parse(CompareRequest, await read_json(request))
        service.check_model(asked.model)
        work = _Comparison(service, deliberation, asked).result()
        return await unless_gone(request.receive, work)

    return router


class _Comparison:
    def __init__(self, service: Service, deliberation: Deliberation, asked: CompareRequest) -> None:
        self._service, self._deliberation, self._asked = service, deliberation, asked

    async def result(self) -> dict[str, Any]:
        service, asked = self._service, self._asked
        [prompt] = await service.blocking(
            prompts, service.base, asked.prompt, further=asked.cache is not None
        )
        [answer] = await service.blocking(prompts, service.base, asked.answer, further=True)
        if not len(answer):
            raise ApiError(400, "the answer is empty: give at least one character", param="answer")
        async with service.admission.admitted(service.deadline()):
            start = self._deliberation.start
            plain = await start(prompt, "never", named=asked.cache)
            thought = await start(prompt, asked.deliberate or "wait", named=asked.cache)
            self._check_room(max(plain.cache.next_position, thought.cache.next_position), answer)
            without = await service.blocking(self._scores, plain.cache, answer)
            outcome = thought.outcome
            used = outcome.latents == "used"
            changed = await service.blocking(self._scores, thought.cache, answer) if used else None
        return {
            "object": "comparison",
            "model": service.settings.name,
            "tokens": [
                {
                    "id": int(answer[at]),
                    "text": text,
                    "without": without[at],
                    "with": None if changed is None else changed[at],
                }
                for at, text in enumerate(texts(service.base, answer.tolist()))
            ],
            "deliberate": outcome.to_dict(),
        }

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
        with self._service.engine.lock:
            return score(self._service.base, cache, answer).tolist()
