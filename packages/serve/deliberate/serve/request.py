"""What is asked of an engine, and what it tells of the answer as it goes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from deliberate.core.cache import Cache
from deliberate.core.groups import Positions
from deliberate.core.sampling import Sampling

MOST_ALTERNATIVES = 20
"""Alternatives that are told of a token at most."""

Finish = Literal["stop", "length", "cancelled", "failed"]
"""`stop`: an end token or a stop text came; `length`: the limit did, or the base's positions ended;
`cancelled`: by whoever asked, or because the engine closed; `failed`: see `Piece.error`."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Latents:
    """Latents that have come while an answer was being decoded."""

    latents: Float[Tensor, "latents hidden"]
    """What the coprocessor wrote."""

    positions: Positions
    """Where its latents stand, as its configuration says."""

    behind: int = 0
    """Tokens at the prompt's end that the coprocessor had not read; with none, latents that come
    before the first token predict it."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Request:
    """A prompt and how to go on from it."""

    token_ids: Int[Tensor, " token"]
    """The prompt with its start token, or what follows `cache`, without one."""

    cache: Cache | None = None
    """Goes before the prompt, plain or augmented; left as it was."""

    sampling: Sampling = field(default_factory=Sampling)
    """How tokens are chosen and when the answer ends."""

    logprobs: int = -1
    """Alternatives that are told of each token; -1 tells no log-probabilities at all."""

    late: Callable[[], Latents | None] | None = None
    """Asked between tokens, on the engine's thread, for latents that have come; they are read at
    once, and it is not asked again."""

    keep: bool = False
    """Whether the prompt's cache is kept for `Ticket.cache`."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: one of them is out of range.
        """
        if not len(self.token_ids) and self.cache is None:
            raise ValueError("token_ids must hold a token, or follow a cache: it is empty")
        if self.sampling.every is not None:
            raise ValueError(
                f"every must be None, got {self.sampling.every}: latents come by `late` here"
            )
        if not -1 <= self.logprobs <= MOST_ALTERNATIVES:
            raise ValueError(
                f"logprobs must be from -1 to {MOST_ALTERNATIVES}, got {self.logprobs}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A decoded token."""

    id: int
    """Its number."""

    text: str = ""
    """What it adds to the text of those before it, where log-probabilities are told; of a
    character of several tokens the last one says it, and the others nothing."""

    logprob: float | None = None
    """Its log-probability as the base has it, whatever the sampling; in nats."""

    top: list[tuple[int, str, float]] = field(default_factory=list)
    """The likeliest tokens, falling: number, text, log-probability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What has been added to an answer."""

    text: str
    """Text that is now certain: what may begin a stop text is held back, a stop text left out."""

    tokens: list[Token]
    """Tokens decoded since the last piece, those of an end or of a stop text included."""

    finish: Finish | None = None
    """Why the answer ended, in its last piece."""

    late_after: int | None = None
    """In one piece at most: how many tokens had been decoded when late latents were read."""

    error: Exception | None = None
    """What failed, where something did."""
