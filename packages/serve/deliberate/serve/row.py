"""One answer under way: tokens in, pieces out, until it ends.

token --text, stop, length--> Piece --on_piece--> whoever asked
"""

import logging
from collections.abc import Callable

from deliberate.core.answer import Answer
from deliberate.core.base import Base
from deliberate.core.cache import Cache
from deliberate.core.generate import end_tokens
from deliberate.core.sampling import Choice
from deliberate.serve.prompt import Prompt
from deliberate.serve.request import Finish, Latents, Piece, Request, Token

logger = logging.getLogger(__name__)

OnPiece = Callable[[Piece], None]
"""Told of each piece of an answer, on the engine's thread."""


class Row:
    """An answer from its request to its last piece."""

    def __init__(self, base: Base, request: Request, on_piece: OnPiece) -> None:
        """Begin with nothing decoded.

        Args:
            base: Decodes it.
            request: What is asked.
            on_piece: Told of what is decoded; where it raises, the answer ends.
        """
        self.sampling, self.logprobs = request.sampling, request.logprobs
        self.choice = Choice(request.sampling)
        self.ended = self.cancelled = False
        self.kept: Cache | None = None
        """The prompt's cache, once it was read and where it was asked for."""
        self.position = 0
        """Where its next token stands."""
        self._answer = Answer(base.tokenizer, request.sampling, end=end_tokens(base), told=True)
        self.stream = self._answer.stream
        self._base, self._on_piece, self._keep = base, on_piece, request.keep
        self._late, self._late_after = request.late, None

    @property
    def count(self) -> int:
        """Tokens decoded."""
        return len(self._answer.result.token_ids)

    @property
    def token_ids(self) -> list[int]:
        """They themselves."""
        return self._answer.result.token_ids

    @property
    def token(self) -> int:
        """The last token, which is known and not yet read."""
        return self._answer.result.token_ids[-1]

    def begin(self, prompt: Prompt) -> None:
        """Go on from a prompt that was read."""
        self.position = int(prompt.batch.next_position[0])
        if self._keep:
            self.kept = prompt.cache()

    def take(self, token: Token) -> None:
        """Add a token, and tell what it made certain."""
        answer = self._answer
        text = answer.add(token.id)
        positions = self._base.positions
        full = positions is not None and self.position >= positions  # no further token fits
        finish: Finish | None = None
        if answer.done or full or self.count == self.sampling.max_tokens:
            text += answer.finish()
            finish = answer.result.finish
        late_after, self._late_after = self._late_after, None
        self._tell(Piece(text=text, tokens=[token], finish=finish, late_after=late_after))

    def end(self, finish: Finish, error: Exception | None = None) -> None:
        """End before the answer has ended by itself, and tell the text that was held back."""
        if not self.ended:
            self._tell(Piece(text=self._answer.finish(), tokens=[], finish=finish, error=error))

    def latents(self) -> Latents | None:
        """Latents that have come and can be read now; asked for until there are some."""
        if self._late is None:
            return None
        try:
            latents = self._late()
        except Exception:
            logger.exception("asking for late latents failed: the answer goes on without them")
            self._late = None
            return None
        if latents is None or (latents.behind and not self.count):
            return None
        self._late = None
        reason = self._refusal(latents)
        if reason:
            logger.warning("late latents are left out: %s", reason)
            return None
        return latents

    def took_up(self, latents: Latents) -> None:
        """Note that latents were read, and after them the last token if there is one."""
        self._late_after = self.count
        self.position += len(latents.latents) if latents.positions == "after" else 0
        self.position += self.count > 0

    def _refusal(self, latents: Latents) -> str:
        """Why latents cannot be read, if so: they must not end an answer that goes on."""
        shape = tuple(latents.latents.shape)
        if len(shape) != 2 or not shape[0] or shape[1] != self._base.hidden:
            return f"they have the shape {shape} and the base {self._base.hidden} hidden numbers"
        moved = shape[0] if latents.positions == "after" else 0
        if self._base.positions is not None and self.position + moved >= self._base.positions:
            return f"they would stand beyond the base's {self._base.positions} positions"
        return ""

    def _tell(self, piece: Piece) -> None:
        self.ended = piece.finish is not None
        try:
            self._on_piece(piece)
        except Exception as error:
            logger.exception("telling of a piece failed: its answer ends")
            if not self.ended:
                self.end("failed", error)


class Ticket:
    """Whoever asked holds it for as long as the answer is wanted."""

    def __init__(self, row: Row, wake: Callable[[], None]) -> None:
        self._row, self._wake = row, wake

    def cancel(self) -> None:
        """End the answer before its next token; of no effect where it has ended."""
        self._row.cancelled = True
        self._wake()

    def cache(self) -> Cache | None:
        """The prompt's cache, once it was read, where the request says `keep`."""
        return self._row.kept
