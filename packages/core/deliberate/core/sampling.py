"""How the next token is chosen, and when decoding stops.

last hidden states --base's head--> logits --temperature, top p--> one token a row
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopPLogitsWarper

COLDEST = 1e-4
"""Below this temperature, the likeliest token is taken: dividing by it would overflow."""

SEEDS = 2**63
"""Seeds are below this, and not below its negative."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen and when decoding stops."""

    max_tokens: int = 64
    """Most tokens decoded for each cache."""

    temperature: float = 0.0
    """0, or anything below `COLDEST`, takes the likeliest token; above it, samples."""

    top_p: float = 1.0
    """Samples from the likeliest tokens that make up this much probability."""

    stop: tuple[str, ...] = ()
    """Texts that end decoding; they are left out of the result."""

    seed: int = 0
    """Of the sampling; each row of a batch has its own stream."""

    every: int | None = None
    """Ask for latents again each time this many tokens were decoded; none asks once."""

    ignore_end: bool = False
    """Decode on past end tokens, where a number of tokens is what counts, as for their time."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: one of them is out of range.
        """
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")
        if not 0 <= self.temperature < math.inf:  # NaN is refused too
            raise ValueError(f"temperature must be at least 0 and finite, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.every is not None and self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every}")
        if not -SEEDS <= self.seed < SEEDS:
            raise ValueError(f"seed must be from -2**63 to 2**63 - 1, got {self.seed}")
        if "" in self.stop:
            raise ValueError("stop must not hold the empty text")


class Choice:
    """Chooses tokens from logits as a `Sampling` says."""

    def __init__(self, sampling: Sampling) -> None:
        self._greedy = sampling.temperature < COLDEST
        self._warpers = []
        if not self._greedy:
            self._warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
            if sampling.top_p < 1:
                self._warpers.append(TopPLogitsWarper(sampling.top_p))

    def __call__(
        self, logits: Float[Tensor, "batch vocab"], streams: Sequence[torch.Generator]
    ) -> Int[Tensor, " batch"]:
        """A token for each row.

        Args:
            logits: What the base says of the next token.
            streams: Where each row draws from, where it draws.
        """
        if self._greedy:
            return logits.argmax(-1)
        for warper in self._warpers:
            logits = warper(None, logits.float())
        chances = logits.float().softmax(-1).cpu()
        drawn = [
            torch.multinomial(row_chances, 1, generator=stream)
            for stream, row_chances in zip(streams, chances, strict=True)
        ]
        return torch.cat(drawn).to(logits.device)
