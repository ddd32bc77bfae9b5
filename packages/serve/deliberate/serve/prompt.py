"""A prompt that the base reads slice by slice, so that answers go on in between.

cache, token ids --slice--> … --slice--> a batch of one row, ready to be decoded from
"""

from jaxtyping import Float, Int
from torch import Tensor

from deliberate.core.augment import followed_by, prefill
from deliberate.core.base import Base
from deliberate.core.batch import Batch
from deliberate.core.cache import Cache
from deliberate.core.errors import TextError


class Prompt:
    """What of a prompt has been read, and what is left of it."""

    def __init__(self, base: Base, token_ids: Int[Tensor, " token"], cache: Cache | None) -> None:
        """Begin after a cache, or with nothing.

        Args:
            base: Reads it.
            token_ids: What is to be read.
            cache: Goes before it; left as it was.
        """
        self._base, self._begun, self._token_ids = base, cache, token_ids
        self._batch = None if cache is None else Batch([cache])
        self._tip = None if cache is None else cache.tip
        self._first = self._read = 0  # tokens in the cache begun with, and all that were read

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return self._read == len(self._token_ids)

    @property
    def batch(self) -> Batch:
        """What was read, as a batch of one row."""
        assert self._batch is not None
        return self._batch

    @property
    def tip(self) -> Float[Tensor, " hidden"]:
        """The last hidden state, which predicts the next token."""
        assert self._tip is not None
        return self._tip

    def read(self, most: int) -> int:
        """Read the next tokens, `most` or fewer, and say how many."""
        base, part = self._base, self._token_ids[self._read : self._read + most]
        if self._batch is None:
            [self._begun] = prefill(base, [part])
            self._batch, self._tip = Batch([self._begun]), self._begun.tip
            self._first = len(part)
        elif len(part):
            self._tip = self._batch.feed(base.trunk, base.embed(part)[None])[0, -1]
        self._read += len(part)
        return len(part)

    def cache(self) -> Cache:
        """All that was read, as a cache; to be asked before anything is decoded."""
        assert self._begun is not None
        new = self._token_ids[self._first : self._read]
        return followed_by(self._begun, self.batch, new, self.tip) if len(new) else self._begun


def check_room(
    base: Base, token_ids: Int[Tensor, " token"], cache: Cache | None, *, answer: bool
) -> None:
    """Refuse what the base has no positions for.

    Args:
        base: Is to read it.
        token_ids: A prompt.
        cache: Goes before it.
        answer: Whether a token must fit after it.

    Raises:
        TextError: names the lengths.
    """
    first = 0 if cache is None else cache.next_position
    if base.positions is not None and first + len(token_ids) + answer > base.positions:
        after = f" after the {first} positions of its cache" if first else ""
        room = " and needs one more for the answer" if answer else ""
        raise TextError(
            f"the prompt has {len(token_ids)} tokens{after}{room}, and {base.id!r} reads at most "
            f"{base.positions}: shorten it"
        )
