"""Decoding from caches, with or without latents, several at once.

    cache [+ prompt] --augment--> augmented cache --token by token--> text

Source: arXiv:2412.17747, section 2.1 (latents once, at the end of the prompt); asking again
while decoding is ours.
"""

from collections.abc import Callable, Sequence

import torch

from deliberate.core.answer import Answer, Generation
from deliberate.core.augment import augment, check_room, extend, has_room, without_latents
from deliberate.core.base import Base
from deliberate.core.batch import Batch
from deliberate.core.cache import Cache
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.sampling import Choice, Sampling

OnText = Callable[[int, str], None]
"""Called with a row's number and the text that it has grown by."""


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
    decoding = _Decoding(base, sampling, len(caches), on_text=on_text)
    rows = decoding.rows
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
    return decoding.finish()


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
    base: Base, caches: Sequence[Cache], rows: Sequence[Answer], before: list[int]
) -> list[Cache]:
    """The plain caches over each text and what was decoded of it since `before`."""

    def grown(cache: Cache, row: Answer, start: int) -> Cache:
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


class _Decoding:
    """Chooses tokens for a batch of rows and feeds them to the base."""

    def __init__(
        self, base: Base, sampling: Sampling, rows: int, *, on_text: OnText | None
    ) -> None:
        self._base, self._choice, self._on_text = base, Choice(sampling), on_text
        end, told = set() if sampling.ignore_end else end_tokens(base), on_text is not None
        self.rows = [
            Answer(base.tokenizer, sampling, end=end, stream=row, told=told) for row in range(rows)
        ]

    @property
    def finished(self) -> bool:
        """Whether every row has ended."""
        return all(row.done for row in self.rows)

    def run(self, caches: Sequence[Cache], steps: int) -> None:
        """Decode up to `steps` tokens for each row that goes on."""
        base, streams = self._base, [row.stream for row in self.rows]
        batch = Batch(caches)
        hidden = torch.stack([cache.tip for cache in caches])
        for step in range(steps):
            tokens = self._choice(base.logits(hidden), streams)
            for index, token in enumerate(tokens.tolist()):
                if not self.rows[index].done:
                    self._tell(index, self.rows[index].add(token))
            position_ids = batch.next_position[:, None]
            if base.positions is not None:
                for row, position in zip(self.rows, batch.next_position.tolist(), strict=True):
                    row.done |= position >= base.positions  # by its length: nothing more fits
                # Rows that ended go on with the batch, and nobody looks at them.
                position_ids = position_ids.clamp(max=base.positions - 1)
            if step + 1 == steps or self.finished:
                break
            embeds = base.embed(tokens[:, None])
            hidden = batch.feed(base.trunk, embeds, position_ids=position_ids)[:, -1]

    def finish(self) -> list[Generation]:
        """The results, with the text that was held back."""
        for index, row in enumerate(self.rows):
            self._tell(index, row.finish())
        return [row.result for row in self.rows]

    def _tell(self, index: int, text: str) -> None:
        if self._on_text is not None and text:
            self._on_text(index, text)
