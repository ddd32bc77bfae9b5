"""The coprocessor: reads the base's cache and writes latents for the base to read.

    text --base--> cache --coprocessor--> latents --base--> augmented cache

One interface for every kind; each kind is a small file, and `kinds.py` is the only place
that knows their names.

Source: arXiv:2412.17747, sections 2.1 and 2.2.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deliberate.core.ahead_loss import ahead_losses
from deliberate.core.base import EMBEDDED, Base
from deliberate.core.cache import Reading
from deliberate.core.errors import CheckpointError
from deliberate.core.execution import Execution
from deliberate.core.groups import Positions

MAX_LATENTS = 64
"""The most latents the paper tries."""

MAX_RANK = 2**20
"""The largest rank: beyond the width of any layer, and its weights can still be counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoprocessorConfig:
    """What a coprocessor is and how its latents meet the base."""

    kind: str = "full"
    """Which network writes the latents; see `kinds.py`."""

    latents: int = 4
    """Latents written after an anchor, 1 to 64 (the paper's N_L)."""

    soft_input: Literal["free", "last_token"] = "free"
    """What the soft tokens are: free embeddings after the anchor, or offsets to the anchor's
    own embedding, each alone in the anchor's place."""

    latent_norm: Literal["after", "before", "embedding"] = "after"
    """Whether latents are hidden states after or before the final norm, or after it and then of the
    size that the base's input embeddings have, a size that is learned."""

    latent_scale: float = 1.0
    """1: hidden states as they are. Otherwise their root mean square is learned, and starts
    at this many times the median of the base's residual stream. With `latent_norm` `embedding`
    it always is, and starts at this many times the embeddings'."""

    positions: Positions = "after"
    """Whether latents stand after the anchor or over the last tokens of the text."""

    layers: tuple[int, ...] | None = None
    """Numbers of the base's layers that the coprocessor has, each reading its own layer's cache;
    none are all of them."""

    rank: int = 64
    """Of the low-rank weights beside the base's own, for kinds that share those."""

    targets: tuple[str, ...] | None = None
    """Names of the base's linear layers that get low-rank weights, such as `q_proj`; none are
    all of them."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: one of them is out of range, or of another type.
        """
        self._check_types()
        if not 1 <= self.latents <= MAX_LATENTS:
            raise ValueError(f"latents must be from 1 to {MAX_LATENTS}, got {self.latents}")
        if self.rank < 1:
            raise ValueError(f"rank must be at least 1, got {self.rank}")
        if self.rank > MAX_RANK:
            raise ValueError(f"rank must be at most {MAX_RANK}, got {self.rank}")
        for name in ("layers", "targets"):
            if getattr(self, name) == ():
                raise ValueError(f"{name} must name at least one, or be null for all")
        if self.layers is not None and list(self.layers) != sorted({*self.layers}):
            raise ValueError(f"layers must be in rising order, each once, got {list(self.layers)}")
        if not 0 < self.latent_scale < math.inf:
            raise ValueError(f"latent_scale must be above 0, got {self.latent_scale}")
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                known = ", ".join(allowed)
                raise ValueError(f"{name} must be one of {known}, got {getattr(self, name)!r}")

    def _check_types(self) -> None:
        """See that the values are of their types.

        Raises:
            ValueError: one of them is not.
        """
        numbers = [("latents", self.latents), ("rank", self.rank)]
        numbers += [("layers", each) for each in self.layers or ()]
        texts = [("kind", self.kind), *((name, getattr(self, name)) for name in _CHOICES)]
        texts += [("targets", each) for each in self.targets or ()]
        for name, value in numbers:
            if type(value) is not int:
                raise ValueError(f"{name} must be a whole number, got {value!r:.80}")
        for name, value in texts:
            if not isinstance(value, str):
                raise ValueError(f"{name} must be text, got {value!r:.80}")
        if type(self.latent_scale) not in {int, float}:
            raise ValueError(f"latent_scale must be a number, got {self.latent_scale!r:.80}")


OWN = ("layers", "rank", "targets")
"""Settings that some kinds have and others have no use for."""

_CHOICES = {
    "soft_input": ("free", "last_token"),
    "latent_norm": ("after", "before", "embedding"),
    "positions": ("after", "over"),
}

STARTS: dict[str, dict[str, Any]] = {
    "paper": {
        "soft_input": "free",
        "latent_norm": "after",
        "latent_scale": 1.0,
        "positions": "after",
    },
    "warm": {
        "soft_input": "last_token",
        "latent_norm": "before",
        "latent_scale": 16.0,
        "positions": "over",
    },
    "thought": {
        "soft_input": "free",
        "latent_norm": "embedding",
        "latent_scale": 1.0,
        "positions": "over",
    },
}
"""Starting points by name: `paper` is the literal setting, `warm` begins near the base, and the
latents of `thought` are read like tokens; it goes with a recipe's `objective.thought`."""


def coprocessor_config(*, start: str = "warm", **settings: Any) -> CoprocessorConfig:
    """A configuration from a named start, with any of its fields given otherwise.

    Raises:
        ValueError: the start or a field is unknown, or a value is out of range.
    """
    if start not in STARTS:
        raise ValueError(f"start must be one of {', '.join(STARTS)}, got {start!r}")
    known = [f.name for f in fields(CoprocessorConfig)]
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise ValueError(f"unknown coprocessor field {unknown[0]!r}: known are {', '.join(known)}")
    return CoprocessorConfig(**{**STARTS[start], **settings})


class Coprocessor(nn.Module, ABC):
    """Writes latents for any anchors of texts that the base has read."""

    uses: ClassVar[frozenset[str]] = frozenset()
    """The settings of `OWN` that this kind heeds."""

    writes_latents: ClassVar[bool] = True
    """Whether `forward` writes latents; a baseline may do without."""

    owns_trunk: ClassVar[bool] = False
    """Whether it has a decoder that nobody else uses, and which can be adapted."""

    reads_caches: ClassVar[bool] = True
    """Whether all that `forward` reads is in a stored cache."""

    baseline: ClassVar[str] = ""
    """What tables call a kind whose latents do not depend on the text; empty for the others."""

    text_flops: ClassVar[int] = 0
    """FLOPs that it spends on the text itself, a weight and token: 6 where it reads the text with
    gradient."""

    execution: Execution
    """How its groups go through a decoder; not a part of what it is."""

    def __init__(self, config: CoprocessorConfig, base: Base) -> None:
        """Keep the configuration; kinds take from the base what they begin with."""
        super().__init__()
        self.config = config
        self.execution = Execution()

    @classmethod
    def from_pretrained(
        cls, name: str | Path = EMBEDDED, *, base: Base, revision: str | None = None
    ) -> "Coprocessor":
        """A trained coprocessor, as `load_coprocessor` loads it.

        Args:
            name: `nano`, a folder, or a Hub id: `user/repo`, `user/repo@revision`, `hf://user/repo`.
            base: The base it was trained for, already loaded.
            revision: Branch, tag or commit on the Hub, where the id does not say it.

        Raises:
            CheckpointError: it is not a coprocessor, of another kind, damaged, or serves another
                base.
            DeliberateError: there is none of that name.
        """
        from deliberate.core.checkpoint import load_coprocessor  # which imports this

        found = load_coprocessor(name, base=base, revision=revision).coprocessor
        if not isinstance(found, cls):
            raise CheckpointError(
                f"coprocessor {str(name)!r} is of kind {found.config.kind!r} and no "
                f"{cls.__name__}: load it with Coprocessor.from_pretrained"
            )
        return found

    @abstractmethod
    def forward(
        self, reading: Reading, anchors: Int[Tensor, "batch anchors"]
    ) -> Float[Tensor, "batch anchors latents hidden"]:
        """Write latents for the base to read after each anchor, all in one pass.

        Args:
            reading: Texts as the base read them; left as it was.
            anchors: Index of the last token that each group's latents may know.
        """

    def losses(
        self,
        base: Base,
        reading: Reading,
        anchors: Int[Tensor, "batch anchors"],
        *,
        ahead: int,
        delay: int = 0,
        latents: Float[Tensor, "batch anchors latents hidden"] | None = None,
    ) -> Float[Tensor, "batch anchors ahead"]:
        """The base's loss, in nats, at the tokens after each anchor, given what this wrote there.

        Args:
            base: Reads latents and ahead tokens.
            reading: Texts as the base read them, with `delay` + `ahead` tokens after each anchor.
            anchors: Index of the last token that each group's latents know.
            ahead: How many tokens are predicted.
            delay: Tokens that the base decodes before the latents arrive.
            latents: What it wrote, where that is known already.
        """
        return ahead_losses(
            base,
            reading,
            anchors,
            self(reading, anchors) if latents is None else latents,
            ahead=ahead,
            positions=self.config.positions,
            delay=delay,
            execution=self.execution,
        )

    def answering(self, base: Base) -> Base:
        """The base that reads and decodes where this is asked: the one that it serves."""
        return base

    def finished(self) -> "Coprocessor":
        """What is kept of it, now or when training ends; this one stays as it is."""
        return self

    def soft_parameters(self) -> list[nn.Parameter]:
        """Its soft tokens or soft embeddings, which learn at their own rate and never decay."""
        return []

    @property
    def num_parameters(self) -> int:
        """Its trainable weights."""
        return sum(parameter.numel() for parameter in self.parameters())

    def describe(self) -> dict[str, Any]:
        """The configuration as plain values."""
        return asdict(self.config)


class LatentScale(nn.Module):
    """Gives latents a learned root mean square; the identity when made without a start."""

    def __init__(self, start: float | None) -> None:
        """Begin at `start`, or leave latents as they are."""
        super().__init__()
        # The logarithm, so that an optimizer's step is relative to the scale.
        self.log = None if start is None else nn.Parameter(torch.tensor(start).log())

    def forward(self, latents: Float[Tensor, "*shape hidden"]) -> Float[Tensor, "*shape hidden"]:
        """Scale latents."""
        if self.log is None:
            return latents
        return nn.functional.rms_norm(latents, latents.shape[-1:]) * self.log.exp()
