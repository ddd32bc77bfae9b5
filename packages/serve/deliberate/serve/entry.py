"""What a store tells of its caches, and of the files that it does not serve."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["plain", "augmenting", "augmented", "failed"]
"""Of a cache: without latents, without them yet, with them, or without because it failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One cache in the store."""

    id: str
    """Its content address: 32 hexadecimal digits."""

    tokens: int
    """Length of its text."""

    bytes: int
    """Size of its file."""

    state: State
    """Whether it has latents."""

    reason: str
    """Why it failed to get latents; empty if it did not."""

    latents: int
    """Latents in it."""

    tier: Literal["memory", "disk"]
    """Whether its file need not be read to use it."""

    own: bool
    """Whether the store wrote its file, and so may delete it."""

    used: float
    """When it was last used, in seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A file that is not served."""

    path: Path
    """Where it is, or was before it was set aside."""

    reason: str
    """Why not."""

    aside: Path | None
    """Where it was moved; none where it was left as it is, or is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a store takes, and what it has done since it was opened."""

    caches: int
    """How many texts it can serve."""

    augmented: int
    """How many of them have latents."""

    disk_bytes: int
    """Of the files that it wrote."""

    memory_bytes: int
    """Of the caches held in memory."""

    evicted: int
    """Files removed to make room."""

    unfit: int
    """Files that are there and not served, those set aside among them."""
