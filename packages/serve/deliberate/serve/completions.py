"""`POST /v1/completions`: what follows a prompt."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from deliberate.serve.answering import Answering, Form, Wanted
from deliberate.serve.body import read
from deliberate.serve.decoding import Row
from deliberate.serve.engine import Piece, Token
from deliberate.serve.prompts import count, prompts
from deliberate.serve.service import Service
from deliberate.serve.wire import CompletionRequest

MAX_TOKENS = 16
"""Decoded where a request does not say, as OpenAI has it."""


class CompletionForm(Form):
    """OpenAI's shape of a completion."""

    prefix = "cmpl"
    whole = "text_completion"
    chunk = "text_completion"

    def choice(self, row: Row) -> dict[str, Any]:
        """One whole answer."""
        return {
            "index": row.index,
            "text": row.text,
            "finish_reason": row.finish,
            "logprobs": _logprobs(row, row.tokens, start=0),
        }

    def delta(self, row: Row, piece: Piece) -> dict[str, Any]:
        """What an answer has grown by."""
        start = len(row.tokens) - len(piece.tokens)
        return {
            "index": row.index,
            "text": piece.text,
            "finish_reason": piece.finish,
            "logprobs": _logprobs(row, piece.tokens, start=start),
        }


def _logprobs(row: Row, tokens: Sequence[Token], *, start: int) -> dict[str, Any] | None:
    """Tokens and their logarithms of probability.

    Args:
        row: Whose tokens they are.
        tokens: The last of its tokens, or all.
        start: How many come before them.
    """
    if row.logprobs < 0:
        return None
    offset = sum(len(token.text) for token in row.tokens[:start])
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        # Of tokens that say the same, as parts of characters do, the likeliest.
        "top_logprobs": [
            {text: logprob for _, text, logprob in reversed(token.top)} for token in tokens
        ],
        "text_offset": offsets,
    }


def completions(service: Service, answering: Answering) -> APIRouter:
    """The address, for a service."""
    router = APIRouter()

    @router.post("/v1/completions")
    async def complete(request: Request) -> Response:
        asked = await read(request, CompletionRequest, service)
        service.check_model(asked.model)
        wanted = Wanted(
            asked=asked,
            count=count(asked.prompt),
            prompts=lambda: prompts(service.base, asked.prompt, further=asked.cache is not None),
            logprobs=-1 if asked.logprobs is None else asked.logprobs,
            max_tokens=asked.max_completion_tokens or asked.max_tokens or MAX_TOKENS,
            whole=False,
            field="prompt",
        )
        return await answering.answer(request, wanted, CompletionForm())

    return router
