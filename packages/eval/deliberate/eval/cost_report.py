"""What latents cost, as Python values and as the JSON of `deliberate eval --cost --json`.

measured numbers --> rows, a way of answering each --> Cost --> JSON
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deliberate.eval.clock import Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one way of answering costs."""

    name: str
    """`base`, `latents`, or the baseline's name."""

    run: str | None
    """Folder, name or Hub id of what was trained; none for the base."""

    kind: str | None
    """Its kind."""

    latents: int
    parameters: Mapping[str, int]
    """`total` is all that answering takes, `trained` what was learned of it."""

    extra_flops: int
    """FLOPs of writing the latents and of the base's reading them."""

    first_token_seconds: Spread
    """From the prompt's tokens to the first token of the answer."""

    first_token_cached_seconds: Spread | None
    """From the prompt's cache; none where a cache is not enough."""

    extra_seconds: Spread | None
    """From the prompt's cache, beyond the base's time in the same turn."""

    tokens_per_second: Spread
    """Of the tokens after the first."""

    peak_bytes: int
    """Weights that answering takes, and what tensors hold besides at the most."""

    cache_bytes: int
    """The file of the prompt's cache."""

    latents_bytes: int
    """How much larger the augmented cache's file is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByLatents:
    """Time to the first token with a number of latents."""

    latents: int
    first_token_cached_seconds: Spread | None
    """None where there is no room for so many, or a cache is not enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByThought:
    """Time to the base's first token of an answer after others that it decodes to itself."""

    tokens: int
    first_token_cached_seconds: Spread | None
    """None where there is no room for so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What was measured; `to_dict` is its JSON."""

    device: str
    dtype: str
    threads: int
    """That a CPU's products are shared among."""

    prompt_tokens: int
    decoded_tokens: int
    repeats: int
    rows: Sequence[Row]
    """The base first."""

    by_latents: Sequence[ByLatents]
    """With the first run's weights, its soft tokens repeated or cut."""

    chain_of_thought: Sequence[ByThought]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return asdict(self)
