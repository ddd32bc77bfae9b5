"""Many clients at once, and what each of them heard.

texts --Asks--> Ask each --a client: wait where it is told to, or leave--> Heard
"""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx2

Kind = Literal["plain", "streamed", "cached", "new", "leaving"]
"""Decoded at once; in a stream; after the latents of a named cache; of a text never seen, while the
coprocessor thinks about it; in a stream that its client leaves in the middle."""

SHARES: dict[Kind, int] = {"plain": 30, "streamed": 20, "cached": 25, "new": 15, "leaving": 10}
"""Of a hundred requests."""

_LIMIT = 300.0
"""Seconds after which an answer is lost."""


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request."""

    kind: Kind
    prompt: str
    document: str = ""
    """The text of the cache that it names."""

    cache: str = ""
    """Its id."""

    leaves_after: int = 0
    """Tokens after which its client leaves; 0 never."""


@dataclass(kw_only=True)
class Heard:
    """What came of it."""

    ask: Ask
    status: int = 0
    """Of HTTP; 0 where there was no answer."""

    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    finish: str | None = None
    latents: str = ""
    """What the server says became of them."""

    late_after: int | None = None
    first: float | None = None
    """Seconds to the first token of a stream."""

    error: str = ""
    """What was wrong with it, where something was."""

    def take(self, event: dict[str, Any]) -> None:
        """Add a response, or an event of a stream."""
        if "error" in event:
            self.error = str(event["error"])
            return
        [choice] = event["choices"]
        self.token_ids += choice["token_ids"]
        self.text += choice["text"]
        self.finish = choice["finish_reason"]
        outcome = event.get("deliberate", {})
        self.latents = outcome.get("latents", "")
        self.late_after = outcome.get("late_after")


class Asks:
    """An endless row of requests of all kinds, the same for the same seed."""

    def __init__(self, texts: list[str], caches: dict[str, str], *, tokens: int, seed: int) -> None:
        """Begin.

        Args:
            texts: Prompts.
            caches: Ids of caches, by their text.
            tokens: Of an answer; some clients leave before they have so many.
            seed: Of the choice among all these.
        """
        self._texts, self._caches, self._tokens = texts, list(caches.items()), tokens
        self._random, self._made = random.Random(seed), seed * 10**6

    def __iter__(self) -> Iterator[Ask]:
        """As many as are asked for."""
        kinds, shares = list(SHARES), list(SHARES.values())
        while True:
            [kind] = self._random.choices(kinds, shares)
            prompt = self._random.choice(self._texts)
            if kind == "cached":
                document, name = self._random.choice(self._caches)
                yield Ask(kind=kind, prompt=prompt, document=document, cache=name)
                continue
            if kind == "new":
                self._made += 1
                prompt = f"# {self._made}\n{prompt}"
            leaves_after = self._random.randint(1, self._tokens) if kind == "leaving" else 0
            yield Ask(kind=kind, prompt=prompt, leaves_after=leaves_after)


class Crowd:
    """Clients of one server."""

    def __init__(self, url: str, *, tokens: int, on_answer: Callable[[int], None]) -> None:
        """Begin with nothing asked.

        Args:
            url: Of the server.
            tokens: Decoded of each answer.
            on_answer: Told the number of answers after each.
        """
        self.heard: list[Heard] = []
        """In the order in which they ended."""

        self.statuses: Counter[int] = Counter()
        self._url, self._tokens, self._on_answer = url, tokens, on_answer
        self._until, self._wanted = float("inf"), 0

    def run(
        self, asks: Asks, *, clients: int, seconds: float = float("inf"), answers: int = 10**9
    ) -> float:
        """Have clients ask one request after the other, and wait for the last answer.

        Args:
            asks: Shared by all clients.
            clients: At once.
            seconds: Nobody asks after these.
            answers: Nobody asks once there are so many.

        Returns:
            Seconds that it took.
        """
        began = time.monotonic()
        self._until, self._wanted = began + seconds, answers
        asyncio.run(self._gather(iter(asks), clients))
        return time.monotonic() - began

    async def _gather(self, asks: Iterator[Ask], clients: int) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx2.AsyncClient(
            base_url=self._url, timeout=_LIMIT, trust_env=False, limits=limits
        ) as http:
            await asyncio.gather(*(self._client(http, asks) for _ in range(clients)))

    async def _client(self, http: httpx2.AsyncClient, asks: Iterator[Ask]) -> None:
        while time.monotonic() < self._until and self.statuses[200] < self._wanted:
            heard = Heard(ask=next(asks))
            self.heard.append(heard)
            pause = 0.0
            try:
                async with asyncio.timeout(_LIMIT):
                    pause = await self._ask(http, heard)
            except (OSError, TimeoutError, httpx2.HTTPError, ValueError, KeyError) as error:
                heard.error = repr(error)
            self.statuses[heard.status] += 1
            if heard.status == 200:
                self._on_answer(self.statuses[200])
            await asyncio.sleep(max(0.0, min(pause, self._until - time.monotonic())))

    async def _ask(self, http: httpx2.AsyncClient, heard: Heard) -> float:
        """Ask, and hear the answer; the seconds after which to come again, if told."""
        ask = heard.ask
        body = {
            "prompt": ask.prompt,
            "max_tokens": self._tokens,
            "temperature": 0,
            "return_token_ids": True,
            "stream": ask.kind in {"streamed", "leaving"},
            "deliberate": "auto" if ask.kind in {"cached", "new"} else "never",
            "cache": ask.cache or None,
        }
        began = time.monotonic()
        async with http.stream("POST", "/v1/completions", json=body) as response:
            heard.status = response.status_code
            if not body["stream"] or heard.status != 200:
                content = json.loads(await response.aread())
                if heard.status != 429:
                    heard.take(content)
                return float(response.headers.get("retry-after", 0))
            async with aclosing(_events(response)) as events:
                async for event in events:
                    heard.first = heard.first or time.monotonic() - began
                    heard.take(event)
                    if len(heard.token_ids) == ask.leaves_after:
                        break
        return 0.0


async def _events(response: httpx2.Response) -> AsyncGenerator[dict[str, Any]]:
    async for line in response.aiter_lines():
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        if data:
            yield json.loads(data)
    raise ValueError("the stream broke off")
