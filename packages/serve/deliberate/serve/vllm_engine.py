"""Answers decoded by a vLLM server, from embeddings of the prompt and its latents.

    Request --[embed(x) | z]--> vLLM: batching, paging, tensor parallelism --token ids--> pieces
                 |
    no answer begins there --> decoded here, as the engine does without it

The base is here as well: it reads prompts, whose caches the coprocessor reads. Latents that come
while an answer is decoded over there are not taken up.
"""

import logging
import threading
import time
from collections.abc import Sequence

from torch import Tensor

from deliberate.core.base import Base
from deliberate.core.cache import Cache
from deliberate.core.embeds import input_embeds
from deliberate.serve.engine import ClosedError, Engine
from deliberate.serve.prompt import check_room
from deliberate.serve.request import Request, Token
from deliberate.serve.row import OnPiece, Row, Ticket
from deliberate.serve.token_texts import added
from deliberate.serve.vllm_url import checked_url
from deliberate.serve.vllm_wire import RemoteError, Told, body, connect, events

logger = logging.getLogger(__name__)


class VllmEngine(Engine):
    """An engine whose answers another server decodes as long as it can."""

    def __init__(
        self,
        base: Base,
        *,
        url: str,
        model: str,
        rows: int = 16,
        patience: float = 60.0,
        key: str = "",
    ) -> None:
        """Begin to wait for requests.

        Args:
            base: Reads prompts, and decodes what the other server does not.
            url: Of the other server, without `/v1`.
            model: What it calls the base.
            rows: Answers decoded here at most.
            patience: Seconds without a token after which it counts as failed.
            key: What it asks for, if anything.

        Raises:
            ValueError: the address is none.
        """
        self._url, self._model, self._patience, self._key = checked_url(url), model, patience, key
        self._remote: set[threading.Thread] = set()
        self._rows_there: set[Row] = set()
        self._ended = False
        super().__init__(base, rows=rows)

    @property
    def running(self) -> int:
        """Prompts being read and answers being decoded, here and there."""
        return super().running + len(self._rows_there)

    def submit(self, request: Request, on_piece: OnPiece) -> Ticket:
        """Ask for an answer, over there if it can be.

        Args:
            request: What is asked.
            on_piece: Told of each piece, on a thread of the answer's own.

        Raises:
            ClosedError: the engine was closed.
            TextError: the base has no positions for the prompt and a token.
        """
        if self._ended:
            raise ClosedError("the engine is closed and takes no requests: start another one")
        check_room(self.base, request.token_ids, request.cache, answer=True)
        row = Row(self.base, request, on_piece)
        tickets: list[Ticket] = []
        thread = threading.Thread(
            target=self._answer, args=(request, row, on_piece, tickets), daemon=True
        )
        self._remote.add(thread)
        thread.start()
        return _Either(row, tickets)

    def close(self, drain_seconds: float) -> None:
        """Take nothing any more, finish what there is, and cancel what is not done in time.

        Args:
            drain_seconds: How long to go on.
        """
        self._ended, until = True, time.monotonic() + drain_seconds
        for thread in list(self._remote):
            thread.join(max(0.0, until - time.monotonic()))
        for row in list(self._rows_there):
            row.cancelled = True
        super().close(drain_seconds)

    def _answer(self, request: Request, row: Row, on_piece: OnPiece, tickets: list[Ticket]) -> None:
        self._rows_there.add(row)
        try:
            self._decode_there(request, row)
        except Exception as error:
            self._rows_there.discard(row)
            expected = isinstance(error, RemoteError)
            logger.warning("decoding elsewhere failed: %s", error, exc_info=not expected)
            if row.cancelled or row.count:
                row.end("cancelled" if row.cancelled else "failed", error)
            else:
                self._decode_here(request, row, on_piece, tickets)
        finally:
            self._rows_there.discard(row)
            self._remote.discard(threading.current_thread())

    def _decode_here(
        self, request: Request, row: Row, on_piece: OnPiece, tickets: list[Ticket]
    ) -> None:
        """Nothing was told yet: the answer is this engine's own."""
        try:
            tickets.append(super().submit(request, on_piece))
            if row.cancelled:  # meanwhile
                tickets[0].cancel()
        except ClosedError as error:
            row.end("cancelled", error)

    def _decode_there(self, request: Request, row: Row) -> None:
        """Decode to the end.

        Raises:
            RemoteError: the other server fails.
        """
        cache = request.cache
        if len(request.token_ids):
            cache = self.read(request.token_ids, cache)
        assert cache is not None
        row.position, row.kept = cache.next_position, cache if request.keep else None
        asked = body(
            self._prompt(cache), request.sampling, model=self._model, logprobs=request.logprobs
        )
        connection = connect(self._url, self._patience)
        try:
            path = f"{self._url.path}/v1/completions"
            for tokens, finish in events(connection, path, asked, key=self._key):
                for told in tokens:
                    if row.cancelled or row.ended:
                        break
                    row.take(self._token(told, row))
                    row.position += 1
                if row.cancelled or finish is not None or row.ended:
                    break
        finally:
            connection.close()  # vLLM ends an answer whose reader has left
        if row.cancelled:
            row.end("cancelled")
        elif not row.ended:
            row.end("length" if finish == "length" else "stop")

    def _prompt(self, cache: Cache) -> Tensor | list[int]:
        """What stands for a cache over there."""
        if cache.latents is None:
            return cache.token_ids.tolist()
        with self.lock:
            return input_embeds(self.base, cache)

    def _token(self, told: Told, row: Row) -> Token:
        if row.logprobs < 0:
            return Token(id=told.id)
        likeliest = sorted(told.top.items(), key=lambda each: -each[1])[: row.logprobs]
        numbers = [number for number, _ in likeliest]
        text, *others = added(self.base, row.token_ids, [told.id, *numbers])
        top = [
            (number, said, value) for (number, value), said in zip(likeliest, others, strict=True)
        ]
        return Token(id=told.id, text=text, logprob=told.logprob, top=top)


class _Either(Ticket):
    """A place over there, or the one that took its place here."""

    def __init__(self, row: Row, here: list[Ticket]) -> None:
        # Not by a method of its own: it would hold itself, and the answer's cache with it.
        super().__init__(row, lambda: _cancel(here))
        self._here = here

    def cache(self) -> Cache | None:
        """The prompt's cache, where the request says `keep`."""
        return self._here[0].cache() if self._here else super().cache()


def _cancel(tickets: Sequence[Ticket]) -> None:
    for ticket in tickets:
        ticket.cancel()
