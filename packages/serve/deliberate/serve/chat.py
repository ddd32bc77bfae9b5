"""`POST /v1/chat/completions`: the model's turn in a conversation."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from deliberate.serve.answering import Answering, Form, Wanted
from deliberate.serve.body import read
from deliberate.serve.decoding import Row
from deliberate.serve.engine import Piece, Token
from deliberate.serve.prompts import conversation
from deliberate.serve.refusals import ApiError
from deliberate.serve.service import Service
from deliberate.serve.wire import ChatRequest


class ChatForm(Form):
    """OpenAI's shape of a turn."""

    prefix = "chatcmpl"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"

    def __init__(self) -> None:
        self._begun: set[int] = set()

    def choice(self, row: Row) -> dict[str, Any]:
        """One whole answer."""
        return {
            "index": row.index,
            "message": {"role": "assistant", "content": row.text, "refusal": None},
            "finish_reason": row.finish,
            "logprobs": _logprobs(row, row.tokens),
        }

    def delta(self, row: Row, piece: Piece) -> dict[str, Any]:
        """What an answer has grown by; the first says whose turn it is."""
        delta = {"content": piece.text}
        if row.index not in self._begun:
            self._begun.add(row.index)
            delta = {"role": "assistant", **delta}
        return {
            "index": row.index,
            "delta": delta,
            "finish_reason": piece.finish,
            "logprobs": _logprobs(row, piece.tokens),
        }


def _logprobs(row: Row, tokens: Sequence[Token]) -> dict[str, Any] | None:
    if row.logprobs < 0:
        return None
    content = [
        _told(token.text, token.logprob)
        | {"top_logprobs": [_told(text, logprob) for _, text, logprob in token.top]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _told(text: str, logprob: float | None) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


def chat(service: Service, answering: Answering) -> APIRouter:
    """The address, for a service."""
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def turn(request: Request) -> Response:
        asked = await read(request, ChatRequest, service)
        service.check_model(asked.model)
        if asked.top_logprobs is not None and not asked.logprobs:
            raise ApiError(
                400, "'top_logprobs' needs 'logprobs': set it to true", param="top_logprobs"
            )
        wanted = Wanted(
            asked=asked,
            count=1,
            prompts=lambda: [conversation(service.base, asked.messages, asks=True)],
            logprobs=(asked.top_logprobs or 0) if asked.logprobs else -1,
            max_tokens=asked.max_completion_tokens or asked.max_tokens,
            whole=True,
            field="messages",
        )
        return await answering.answer(request, wanted, ChatForm())

    return router
