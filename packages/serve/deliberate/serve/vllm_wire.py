"""What a vLLM server is asked, and what it answers.

    prompt embeddings | token ids --body--> POST /v1/completions --events--> token ids, logprobs

Written after vLLM's documentation and source (`--enable-prompt-embeds`): embeddings are a tensor
(token, hidden) as `torch.save` writes it, in base64. Nothing here reads a pickle.
"""

import base64
import http.client
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult

import torch
from jaxtyping import Float
from torch import Tensor

from deliberate.core.errors import DeliberateError
from deliberate.core.sampling import Sampling

_NAMED = "token_id:"
"""What `return_tokens_as_token_ids` puts before a token's number."""

_LONGEST_SAID = 300
"""Characters of another server's error that are repeated."""


class RemoteError(DeliberateError):
    """The other server did not answer, or not as it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A token as the other server tells of it."""

    id: int
    logprob: float | None
    top: dict[int, float]
    """The likeliest tokens and their log-probabilities."""


def body(
    prompt: Float[Tensor, "place hidden"] | list[int],
    sampling: Sampling,
    *,
    model: str,
    logprobs: int,
) -> dict[str, Any]:
    """A request; stop texts are left to whoever reads the answer.

    Args:
        prompt: Input embeddings, or token ids.
        sampling: How tokens are chosen.
        model: What the other server calls the base.
        logprobs: Alternatives wanted of each token.
    """
    if isinstance(prompt, Tensor):
        written = io.BytesIO()
        torch.save(prompt.cpu().clone(), written)
        asked: dict[str, Any] = {"prompt_embeds": base64.b64encode(written.getvalue()).decode()}
    else:
        asked = {"prompt": prompt}
    return {
        **asked,
        "model": model,
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "stream": True,
        "logprobs": max(0, logprobs),
        "return_tokens_as_token_ids": True,
        "ignore_eos": sampling.ignore_end,
    }


def connect(url: SplitResult, timeout: float) -> http.client.HTTPConnection:
    """A connection that is made once something is sent."""
    secure = url.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    assert url.hostname is not None
    return kind(url.hostname, url.port, timeout=timeout)


def events(
    connection: http.client.HTTPConnection, path: str, asked: Mapping[str, Any], *, key: str
) -> Iterator[tuple[list[Told], str | None]]:
    """The tokens of an answer as they come, and why it ended once it has.

    Raises:
        RemoteError: the server is down, too slow, refuses, fails, or says what is no answer.
    """
    headers = {"content-type": "application/json"} | (
        {"authorization": f"Bearer {key}"} if key else {}
    )
    where = f"http://{connection.host}:{connection.port}{path}"
    try:
        connection.request("POST", path, json.dumps(asked), headers)
        response = connection.getresponse()
        if response.status != 200:
            said = " ".join(response.read(4096).decode(errors="replace").split())
            raise RemoteError(f"{where} answered {response.status}: {said[:_LONGEST_SAID]}")
        for line in response:
            data = line.decode().strip().removeprefix("data:").strip()
            if data == "[DONE]":
                return
            if data:
                yield _event(json.loads(data), where)
    except TimeoutError as error:
        raise RemoteError(f"{where} did not answer in {connection.timeout:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        raise RemoteError(f"{where} cannot be reached: {error}") from error
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise RemoteError(f"{where} sent what is no completion of vLLM's: {error!r}") from error
    raise RemoteError(f"{where} broke off before its answer had ended")


def _event(event: dict[str, Any], where: str) -> tuple[list[Told], str | None]:
    """One event of a stream.

    Raises:
        RemoteError: it tells of a failure.
        ValueError: its text comes without its tokens.
    """
    if "error" in event:
        raise RemoteError(f"{where} failed: {str(event['error'])[:_LONGEST_SAID]}")
    if not event["choices"]:
        return [], None
    choice = event["choices"][0]
    told = choice.get("logprobs") or {"tokens": [], "token_logprobs": [], "top_logprobs": []}
    if choice["text"] and not told["tokens"]:
        raise ValueError("text without logprobs")
    tops = told.get("top_logprobs") or [None] * len(told["tokens"])
    tokens = [
        Told(
            id=_number(token),
            logprob=logprob,
            top={_number(name): value for name, value in (top or {}).items()},
        )
        for token, logprob, top in zip(told["tokens"], told["token_logprobs"], tops, strict=True)
    ]
    return tokens, choice["finish_reason"]


def _number(token: str) -> int:
    if not token.startswith(_NAMED):
        raise ValueError("tokens are not named by number")
    return int(token.removeprefix(_NAMED))
