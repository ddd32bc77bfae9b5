"""An engine, and someone who asks it and keeps what it tells."""

import threading
from collections.abc import Callable

import pytest

from deliberate.core.answer import Generation
from deliberate.serve.engine import Engine, Piece, Request

PATIENCE = 60
"""Seconds after which an answer is lost; none is waited for that long where all is well."""


class Asked:
    """One request and what came of it."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.ended = threading.Event()

    def wait(self) -> "Asked":
        assert self.ended.wait(PATIENCE), "no answer came"
        return self

    @property
    def tokens(self):
        return [token for piece in self.pieces for token in piece.tokens]

    @property
    def finish(self):
        return self.pieces[-1].finish

    @property
    def late_after(self):
        return [piece.late_after for piece in self.pieces if piece.late_after is not None]

    def generation(self) -> Generation:
        """What `generate` would have returned."""
        text = "".join(piece.text for piece in self.pieces)
        ids = [token.id for token in self.tokens]
        return Generation(token_ids=ids, text=text, finish=self.finish)


def told(asked: Asked, on_piece: Callable[[Piece], None] | None) -> Callable[[Piece], None]:
    """Keeps each piece and hands it on."""

    def tell(piece: Piece) -> None:
        asked.pieces.append(piece)
        if on_piece is not None:
            on_piece(piece)
        if piece.finish is not None:
            asked.ended.set()

    return tell


@pytest.fixture
def ask() -> Callable[..., Asked]:
    """Ask an engine; what it tells is kept, and handed on to `on_piece`."""

    def ask(engine: Engine, request: Request, on_piece=None, *, asked: Asked | None = None):
        asked = asked or Asked()
        asked.ticket = engine.submit(request, told(asked, on_piece))
        return asked

    return ask


@pytest.fixture
def engine():
    """Makes engines, and closes them."""
    made = []

    def make(base, **settings) -> Engine:
        made.append(Engine(base, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close(0.0)


@pytest.fixture
def asked() -> type[Asked]:
    """What keeps pieces, for requests that must know of it before they are made."""
    return Asked


def same(ours: Generation, theirs: Generation) -> bool:
    return (ours.token_ids, ours.text, ours.finish) == (
        theirs.token_ids,
        theirs.text,
        theirs.finish,
    )


@pytest.fixture
def equal() -> Callable[[Generation, Generation], bool]:
    """Whether two results are the same."""
    return same
