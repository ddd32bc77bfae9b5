"""A lock that is had in the order in which it was asked for."""

import threading
from collections import deque

from deliberate.core.errors import DeliberateError


class AbandonedError(DeliberateError):
    """Nobody gets a turn any more: the server ends."""


class Turns:
    """Guards a base's weights between the engine and whoever else runs them.

    The engine lets go of it between two tokens only, for too short a time to be overtaken: with a
    plain lock others might wait for as long as it has work.
    """

    def __init__(self) -> None:
        self._guard, self._taken, self._abandoned = threading.Lock(), False, False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        """Wait for one's turn.

        Raises:
            AbandonedError: there are no turns any more.
        """
        with self._guard:
            self._check()
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()
        self._check()

    def __exit__(self, *_: object) -> None:
        """Let the next one go on."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False

    def abandon(self) -> None:
        """Give no turns any more; whoever waits for one is told."""
        with self._guard:
            self._abandoned = True
            while self._waiting:
                self._waiting.popleft().release()

    def _check(self) -> None:
        if self._abandoned:
            raise AbandonedError(
                "the server ends, and nobody may use the base's weights any more: start another one"
            )
