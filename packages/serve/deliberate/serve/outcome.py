"""Where an answer begins, and what its response says of its latents."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from deliberate.core.cache import Cache
from deliberate.serve.engine import Latents
from deliberate.serve.wire import Mode


@dataclass(kw_only=True)
class Outcome:
    """What a response says of its latents."""

    mode: Mode
    """What the request asked for."""

    latents: str = "not_ready"
    """`used` from the first token on, `late` after some, `not_ready` in time, `skipped` by the gate
    or for want of room, `absent` without a coprocessor, `failed`, or `never` asked for."""

    cache: str | None = None
    """The stored cache that the latents belong to."""

    late_after: int | None = None
    """Tokens that were decoded when late latents came."""

    waited_seconds: float = 0.0
    """How long the answer waited for latents."""

    entropy: float | None = None
    """Of the next token without latents, in nats, where the gate asked."""

    reason: str = ""
    """Why the latents failed, were skipped or are not ready."""

    timed_out: bool = False
    """Whether the answer ended because its time was over."""

    def to_dict(self) -> dict[str, Any]:
        """For a response."""
        return asdict(self)


class Late:
    """Latents on their way: asked for between tokens, by the engine's thread."""

    def __init__(self, *, behind: int) -> None:
        """Begin without.

        Args:
            behind: Tokens at the prompt's end that the coprocessor does not read.
        """
        self.cache: Cache | None = None
        """The augmented cache, once it is there."""

        self._behind = behind

    def __call__(self) -> Latents | None:
        """The latents, once they are there."""
        if self.cache is None or self.cache.latents is None:
            return None
        after = self.cache.next_position > len(self.cache.token_ids)
        return Latents(
            latents=self.cache.latents,
            positions="after" if after else "over",
            behind=self._behind,
        )


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where an answer begins."""

    cache: Cache
    """Over the whole prompt."""

    tokens: int
    """Of the prompt, what was stored included."""

    cached: int
    """How many of them did not have to be read."""

    outcome: Outcome
    """What is known of the latents so far; changes while they are on their way."""

    late: Callable[[], Latents | None] | None = None
    """Tells of latents that come while the answer is decoded."""
