"""What is asked for an answer where costs are measured: the base alone, or with someone's latents.

prompt --base--> cache --(coprocessor, base)--> augmented cache --base--> tokens
"""

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor, nn

from deliberate.core.augment import augment, prefill
from deliberate.core.base import Base
from deliberate.core.cache import Cache, caches
from deliberate.core.checkpoint import Trained
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.generate import Sampling, generate


@dataclass(frozen=True, eq=False, kw_only=True)
class Candidate:
    """A base, and what writes latents for it."""

    name: str
    """What a report calls it."""

    base: Base = field(repr=False)
    """Decodes."""

    trained: Trained | None = None
    """What was trained; none is the base as it is."""

    @classmethod
    def of(cls, name: str, base: Base, trained: Trained) -> "Candidate":
        """What was trained for a base, answering with that base or in its place."""
        return cls(name=name, base=trained.coprocessor.answering(base), trained=trained)

    @property
    def writer(self) -> Coprocessor | None:
        """What writes latents, if anything does."""
        coprocessor = self.trained.coprocessor if self.trained else None
        return coprocessor if coprocessor and coprocessor.writes_latents else None

    @property
    def latents(self) -> int:
        """How many are written."""
        return self.writer.config.latents if self.writer else 0

    @property
    def places(self) -> int:
        """Positions that the latents take up behind the text."""
        return self.latents if self.writer and self.writer.config.positions == "after" else 0

    @property
    def reads_caches(self) -> bool:
        """Whether a stored cache is enough to answer from."""
        return self.writer is None or self.writer.reads_caches

    @property
    def parameters(self) -> dict[str, int]:
        """Weights that answering takes, and those of them that were trained."""
        own = self.trained.coprocessor.num_parameters if self.trained else 0
        return {
            "total": self.base.num_parameters + (own if self.writer else 0),
            "trained": own,
        }

    @property
    def weights_bytes(self) -> int:
        """What all these weights take up in memory."""
        named = self.base.model.named_parameters()
        weights = {id(weight): weight for name, weight in named if ".lora_" not in name}
        if self.writer:
            weights |= {id(weight): weight for weight in self.writer.parameters()}
        return sum(weight.nbytes for weight in weights.values())

    def plain(self, prompt: Int[Tensor, " token"]) -> Cache:
        """The prompt's cache."""
        return prefill(self.base, [prompt])[0]

    def augmented(self, prompt: Int[Tensor, " token"]) -> Cache:
        """The prompt's cache, with latents where any are written."""
        reading = self.base.read(prompt[None])
        plain = caches(reading, [len(prompt)], origin=self.base.origin)
        if self.trained is None or self.writer is None:
            return plain[0]
        return augment(
            self.base,
            self.writer,
            plain,
            name=self.trained.id,
            fingerprint=self.trained.fingerprint,
            reading=None if self.reads_caches else reading,
        )[0]

    def decode(self, caches: Sequence[Cache], tokens: int) -> list[list[int]]:
        """Greedily decoded tokens; latents are asked for first where a cache has none.

        Args:
            caches: Of this candidate's base; left as they were.
            tokens: How many for each, whether or not its text ends before.
        """
        sampling = Sampling(max_tokens=tokens, ignore_end=True)
        found = generate(self.base, caches, sampling, coprocessor=self.writer)
        return [each.token_ids for each in found]


def resized(coprocessor: Coprocessor, latents: int) -> Coprocessor:
    """The same weights with another number of latents: its soft tokens repeated or cut.

    What it writes is of no use; what it costs is what one trained with so many would.

    Args:
        coprocessor: Left as it was; all but the soft tokens is shared.
        latents: 1 or more.
    """
    count = coprocessor.config.latents
    soft = {id(weight) for weight in coprocessor.soft_parameters() if len(weight) == count}
    twin = copy.copy(coprocessor)
    twin.config = dataclasses.replace(coprocessor.config, latents=latents)
    twin._parameters = {
        name: weight
        if weight is None or id(weight) not in soft
        else nn.Parameter(weight.detach()[torch.arange(latents) % count], requires_grad=False)
        for name, weight in coprocessor._parameters.items()
    }
    return twin
