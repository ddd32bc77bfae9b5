"""Decoding from caches, with or without latents, several at once.

    cache [+ prompt] --augment--> augmented cache --token by token--> text

Source: arXiv:2412.17747, section 2.1 (latents once, at the end of the prompt); asking again
while decoding is ours.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase, TemperatureLogitsWarper, TopPLogitsWarper

from deliberate.core.augment import augment, check_room, extend, has_room, without_latents
from deliberate.core.base import Base
from deliberate.core.cache import Batch, Cache
from deliberate.core.coprocessor import Coprocessor

OnText = Callable[[int, str], None]
"""Called with a row's number and the text that it has grown by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen and when decoding stops."""

    max_tokens: int = 64
    """Most tokens decoded for each cache."""

    temperature: float = 0.0
    """0 takes the likeliest token; above it, samples."""

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
        if "" in self.stop:
            raise ValueError("stop must not hold the empty text")


@dataclass(eq=False)
class Generation:
    """What was decoded from one cache."""

    token_ids: list[int] = field(default_factory=list)
    """Decoded tokens, with the end token if one was decoded."""

    text: str = ""
    """Their text, without end token and stop text."""

    finish: Literal["length", "stop"] = "length"
    """`stop`: an end token or a stop text came; `length`: the limit did."""


@torch.no_grad()
def generate(
    base: Base,
    caches: Sequence[Cache],
    sampling: Sampling | None = None,
    *,
    coprocessor: Coprocessor | None = None,
    on_text: OnText | None = None,
) -> list[Generation]:
    """Decode from caches of any lengths, all in one batch.

    Args:
        base: Made the caches.
        caches: Plain or augmented; left as they were.
        sampling: How to choose tokens and when to stop.
        coprocessor: Asked for latents before decoding where a cache has none, and again as
            `sampling.every` says.
        on_text: Told of each row's new text as soon as it is certain.

    Raises:
        TextError: a cache leaves no room for a token in the base's positions.
        ValueError: latents are asked for again without a coprocessor.
    """
    sampling = sampling or Sampling()
    if sampling.every is not None and coprocessor is None:
        raise ValueError(f"every={sampling.every} asks for latents and there is no coprocessor")
    for cache in caches:
        check_room(base, cache, 1)
    rows = [_Row(base.tokenizer, sampling, index, on_text) for index in range(len(caches))]
    decoding = _Decoding(base, rows, sampling)
    caches = _augmented(base, coprocessor, caches)
    left = sampling.max_tokens
    while left and not decoding.finished:
        steps = min(sampling.every or left, left)
        before = [len(row.result.token_ids) for row in rows]
        decoding.run(caches, steps)
        left -= steps
        if left and not decoding.finished:
            caches = _grown(base, caches, rows, before)
            going_on = [index for index, row in enumerate(rows) if not row.done]
            caches = _augmented(base, coprocessor, caches, going_on)
    return [row.finish() for row in rows]


def _augmented(
    base: Base,
    coprocessor: Coprocessor | None,
    caches: Sequence[Cache],
    again: Sequence[int] | None = None,
) -> Sequence[Cache]:
    """The caches, with latents where they had none.

    Asked `again`, only these rows get latents, and none where there is no room for them: text
    that was decoded is not lost because latents would not fit.
    """
    bare = [index for index, cache in enumerate(caches) if cache.latents is None]
    if coprocessor is None:
        return caches
    if again is not None:
        tokens = [len(cache.token_ids) for cache in caches]
        bare = [i for i in bare if i in again and has_room(base, coprocessor, tokens[i])]
    if not bare:
        return caches
    fresh = dict(zip(bare, augment(base, coprocessor, [caches[i] for i in bare]), strict=True))
    return [fresh.get(index, cache) for index, cache in enumerate(caches)]


def _grown(
    base: Base, caches: Sequence[Cache], rows: "list[_Row]", before: list[int]
) -> list[Cache]:
    """The plain caches over each text and what was decoded of it since `before`."""

    def grown(cache: Cache, row: _Row, start: int) -> Cache:
        if row.done:
            return cache
        new = torch.tensor(row.result.token_ids[start:], dtype=torch.long, device=base.device)
        return extend(base, without_latents(base, cache), new)

    return [grown(*one) for one in zip(caches, rows, before, strict=True)]


def end_tokens(base: Base) -> set[int | None]:
    """The tokens that end decoding."""
    end = base.model.generation_config.eos_token_id
    if end is None:
        end = base.tokenizer.eos_token_id
    return set(end) if isinstance(end, list) else {end}


class _Row:
    """One cache's decoded text: collects tokens, finds the stop, tells what is certain."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        sampling: Sampling,
        index: int,
        on_text: OnText | None,
    ) -> None:
        self.result = Generation()
        self.done = False
        self.random = torch.Generator().manual_seed(sampling.seed + index)
        self._tokenizer, self._stop, self._index = tokenizer, sampling.stop, index
        self._on_text, self._told = on_text, 0
        # The longest tail that may turn out to begin a stop text.
        self._held = max((len(text) - 1 for text in sampling.stop), default=0)

    def add(self, token: int, end: set[int | None]) -> None:
        """Take the next token."""
        self.result.token_ids.append(token)
        if token in end:
            self.done, self.result.finish = True, "stop"
            return
        if self._stop or self._on_text:
            text = self._text()
            found = [at for stop in self._stop if (at := text.find(stop)) >= 0]
            if found:
                self.done, self.result.finish = True, "stop"
                text = text[: min(found)]
                self.result.text = text
            # A character may need further tokens; until they come it decodes to U+FFFD.
            certain = len(text.rstrip("\ufffd")) - (0 if self.done else self._held)
            self._tell(text, certain)

    def finish(self) -> Generation:
        """The result, with the text that was held back."""
        if not (self.done and self.result.text):
            self.result.text = self._text()
            for stop in self._stop:
                self.result.text = self.result.text.split(stop)[0]
        self._tell(self.result.text, len(self.result.text))
        return self.result

    def _text(self) -> str:
        return cast(str, self._tokenizer.decode(self.result.token_ids, skip_special_tokens=True))

    def _tell(self, text: str, certain: int) -> None:
        if self._on_text is not None and certain > self._told:
            self._on_text(self._index, text[self._told : certain])
            self._told = certain


class _Decoding:
    """Chooses tokens for a batch of rows and feeds them to the base."""

    def __init__(self, base: Base, rows: list[_Row], sampling: Sampling) -> None:
        self._base, self._rows = base, rows
        self._end = set() if sampling.ignore_end else end_tokens(base)
        self._greedy = sampling.temperature == 0
        self._warpers = []
        if not self._greedy:
            self._warpers = [
                TemperatureLogitsWarper(sampling.temperature),
                TopPLogitsWarper(sampling.top_p),
            ]

    @property
    def finished(self) -> bool:
        """Whether every row has ended."""
        return all(row.done for row in self._rows)

    def run(self, caches: Sequence[Cache], steps: int) -> None:
        """Decode up to `steps` tokens for each row that goes on."""
        base = self._base
        batch = Batch(caches)
        hidden = torch.stack([cache.tip for cache in caches])
        for step in range(steps):
            tokens = self._choose(base.logits(hidden))
            for row, token in zip(self._rows, tokens.tolist(), strict=True):
                if not row.done:
                    row.add(token, self._end)
            position_ids = batch.next_position[:, None]
            if base.positions is not None:
                for row, position in zip(self._rows, batch.next_position.tolist(), strict=True):
                    row.done |= position >= base.positions  # by its length: nothing more fits
                # Rows that ended go on with the batch, and nobody looks at them.
                position_ids = position_ids.clamp(max=base.positions - 1)
            if step + 1 == steps or self.finished:
                break
            embeds = base.embed(tokens[:, None])
            hidden = batch.feed(base.trunk, embeds, position_ids=position_ids)[:, -1]

    def _choose(self, logits: Float[Tensor, "batch vocab"]) -> Int[Tensor, " batch"]:
        if self._greedy:
            return logits.argmax(-1)
        for warper in self._warpers:
            logits = warper(None, logits.float())
        chances = logits.softmax(-1).cpu()
        drawn = [
            torch.multinomial(row_chances, 1, generator=row.random)
            for row, row_chances in zip(self._rows, chances, strict=True)
        ]
        return torch.cat(drawn).to(logits.device)
