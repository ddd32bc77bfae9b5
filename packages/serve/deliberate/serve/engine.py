"""Continuous batching over outside keys and values: answers join and leave between tokens.

    submit --> waiting --a row is free--> prompts, read slice by slice --> rows, decoded together
               turn: [cancelled leave] [a slice of prompts] [one token for each row]

transformers has continuous batching too, which does not do here: its requests are token ids alone,
whose keys and values its own paged cache makes, so that neither a cache that was kept nor latents,
which have no token, can enter.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager

import torch
from jaxtyping import Int
from torch import Tensor

from deliberate.core.base import Base
from deliberate.core.cache import Cache
from deliberate.core.errors import DeliberateError
from deliberate.serve.prompt import Prompt, check_room
from deliberate.serve.request import Finish, Latents, Piece, Request, Token
from deliberate.serve.row import OnPiece, Row, Ticket
from deliberate.serve.rows import Rows
from deliberate.serve.turns import Turns

__all__ = ["ClosedError", "Engine", "Latents", "OnPiece", "Piece", "Request", "Ticket", "Token"]

logger = logging.getLogger(__name__)

_LAST_PASS = 5.0
"""Seconds, at the end, in which whoever holds the base's weights must let go of them: a coprocessor
in a thread of this process may hang, and cannot be stopped."""


class ClosedError(DeliberateError):
    """The engine takes nothing any more."""


class _Reading:
    """A text whose cache someone waits for."""

    def __init__(self) -> None:
        self.future: Future[Cache] = Future()

    @property
    def cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.future.cancelled()

    def begin(self, prompt: Prompt) -> None:
        """Hand over the cache."""
        cache = prompt.cache()
        if self.future.set_running_or_notify_cancel():  # from here on it cannot be cancelled
            self.future.set_result(cache)

    def end(self, finish: Finish, error: Exception | None = None) -> None:
        """Hand over why there is none."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(error or _closed())


class Engine:
    """Decodes many answers at once, on a thread of its own.

    An answer is what `core.generate` gives for it alone, whatever else there is to do: in float32
    to the last token, where no two tokens are as likely but for rounding.
    """

    def __init__(
        self,
        base: Base,
        *,
        rows: int = 16,
        slice_tokens: int = 256,
        lock: AbstractContextManager[None] | None = None,
    ) -> None:
        """Begin to wait for requests.

        Args:
            base: Reads and decodes; whatever is handed over later is on its device.
            rows: Answers and prompts in hand at most; the others wait.
            slice_tokens: Tokens of prompts that are read between two tokens of the answers.
            lock: Held whenever the base's weights are used. Whoever else uses them meanwhile holds
                it too, and so does who makes a coprocessor: that listens to a pass of the base.

        Raises:
            ValueError: a number is below 1.
        """
        if min(rows, slice_tokens) < 1:
            raise ValueError(
                f"rows and slice_tokens must be at least 1, got {rows} and {slice_tokens}"
            )
        self.base, self.lock = base, lock or Turns()
        self._most, self._slice = rows, slice_tokens
        self._waiting: deque[tuple[Prompt, Row | _Reading]] = deque()
        self._prompts: deque[tuple[Prompt, Row | _Reading]] = deque()
        self._rows = Rows(base, self.lock)
        self._changed = threading.Condition()
        self._closing = self._dropping = self._cancelling = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests for which no row is free yet."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Prompts that are being read and answers that are being decoded."""
        return self._in_hand

    @property
    def _in_hand(self) -> int:
        """Those of them that are this thread's work."""
        return len(self._prompts) + len(self._rows.rows)

    @property
    def decoded(self) -> int:
        """Tokens decoded so far."""
        return self._rows.decoded

    def submit(self, request: Request, on_piece: OnPiece) -> Ticket:
        """Ask for an answer.

        Args:
            request: What is asked.
            on_piece: Told of each piece, on the engine's thread, which waits for it; where it
                raises, its answer ends as failed and the others go on.

        Raises:
            ClosedError: the engine was closed.
            TextError: the base has no positions for the prompt and a token.
        """
        check_room(self.base, request.token_ids, request.cache, answer=True)
        row = Row(self.base, request, on_piece)
        self._put(Prompt(self.base, request.token_ids, request.cache), row)
        return Ticket(row, self._cancel)

    def read(self, token_ids: Int[Tensor, " token"], cache: Cache | None = None) -> Cache:
        """Do as `reading` does, and wait for it.

        Args:
            token_ids: The text with its start token, or what follows `cache`, without one.
            cache: Goes before it; left as it was.

        Raises:
            ClosedError: the engine was closed, before or meanwhile.
            TextError: the base has no positions for it.
            ValueError: there is nothing to read and no cache.
        """
        return self.reading(token_ids, cache).result()

    def reading(
        self, token_ids: Int[Tensor, " token"], cache: Cache | None = None
    ) -> Future[Cache]:
        """Read a text slice by slice between the tokens of answers.

        Args:
            token_ids: The text with its start token, or what follows `cache`, without one and
                possibly nothing.
            cache: Goes before it; left as it was.

        Returns:
            Its cache, once it was read, or `ClosedError` where the engine is closed before. Where
            it is cancelled, no further slice is read.

        Raises:
            ClosedError: the engine was closed.
            TextError: the base has no positions for it.
            ValueError: there is nothing to read and no cache.
        """
        reading = _Reading()
        if not len(token_ids):
            if cache is None:
                raise ValueError("token_ids must hold a token, or follow a cache: it is empty")
            reading.future.set_result(cache)
            return reading.future
        check_room(self.base, token_ids, cache, answer=False)
        self._put(Prompt(self.base, token_ids, cache), reading)
        reading.future.add_done_callback(lambda future: future.cancelled() and self._cancel())
        return reading.future

    def close(self, drain_seconds: float) -> None:
        """Take nothing any more, finish what there is, and cancel what is not done in time.

        Nobody gets a turn with the weights any more, where their lock is the engine's own. If it is
        never let go of, what was in hand ends as failed.

        Args:
            drain_seconds: How long to go on.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(drain_seconds)
        with self._changed:
            self._dropping = True
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(_LAST_PASS)
            if self._thread.is_alive():
                logger.error("the base's weights are held by something that hangs: left behind")
            if isinstance(self.lock, Turns):
                self.lock.abandon()
            self._thread.join()

    def _put(self, prompt: Prompt, owner: Row | _Reading) -> None:
        with self._changed:
            if self._closing:
                raise _closed()
            self._waiting.append((prompt, owner))
            self._changed.notify_all()

    def _cancel(self) -> None:
        with self._changed:
            self._cancelling = True
            self._changed.notify_all()

    @torch.no_grad()
    def _run(self) -> None:
        """Take turns until closed."""
        while self._goes_on():
            if self._cancelling:
                self._cancelling = False
                self._drop(lambda owner: owner.cancelled)
            while self._waiting and self._in_hand < self._most:
                self._prompts.append(self._waiting.popleft())
            self._read_slice()
            if self._rows.rows:
                self._step()
        self._drop(lambda _: True)

    def _goes_on(self) -> bool:
        """Wait for something to do; whether there is."""
        with self._changed:
            while not (self._waiting or self._in_hand or self._closing):
                self._changed.wait()
            return bool(self._waiting or self._in_hand) and not self._dropping

    def _read_slice(self) -> None:
        """Read as many tokens of prompts as one slice has, the prompts taking turns."""
        left = self._slice
        while left > 0 and self._prompts:
            prompt, owner = self._prompts.popleft()
            try:
                with self.lock:
                    left -= prompt.read(left)
                if prompt.done:
                    owner.begin(prompt)
            except Exception as error:
                logger.exception("reading a prompt failed: its request ends")
                owner.end("failed", error)
                continue
            if not prompt.done:
                self._prompts.append((prompt, owner))
            elif isinstance(owner, Row):
                self._rows.join(owner, prompt.batch, prompt.tip)

    def _step(self) -> None:
        try:
            self._rows.step()
        except Exception as error:
            logger.exception("decoding failed: %d answers end", len(self._rows.rows))
            self._rows.fail(error)

    def _drop(self, unwanted: Callable[[Row | _Reading], bool]) -> None:
        """Cancel what is not wanted any more, wherever it is."""
        gone: list[Row | _Reading] = [row for row in self._rows.rows if unwanted(row)]
        try:
            self._rows.drop(unwanted)
        except Exception as error:
            logger.exception("letting go of answers failed: %d end", len(self._rows.rows))
            self._rows.fail(error)
        with self._changed:
            for queue in (self._prompts, self._waiting):
                held = list(queue)
                queue.clear()
                queue.extend(one for one in held if not unwanted(one[1]))
                gone += [owner for _, owner in held if unwanted(owner)]
        for owner in gone:
            owner.end("cancelled")


def _closed() -> ClosedError:
    return ClosedError("the engine is closed and takes no requests: start another one")
