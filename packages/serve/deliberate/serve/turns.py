"""A lock that is had in the order in which it was asked for."""

import threading
from collections import deque


class Turns:
    """Guards a base's weights between the engine and whoever else runs them.

    The engine lets go of it between two tokens only, for too short a time to be overtaken: with a
    plain lock others might wait for as long as it has work.
    """

    def __init__(self) -> None:
        self._guard, self._taken = threading.Lock(), False
        self._waiting: deque[threading.Lock] = deque()

    def __enter__(self) -> None:
        """Wait for one's turn."""
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()

    def __exit__(self, *_: object) -> None:
        """Let the next one go on."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False
