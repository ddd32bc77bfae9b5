"""Prefill and augmentation: texts to caches, caches to augmented caches.

Source: arXiv:2412.17747, section 2.1; latents enter as input embeddings (section 2.3).
"""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deliberate.core.base import Base
from deliberate.core.batch import Batch
from deliberate.core.cache import Cache, Reading, caches, stack
from deliberate.core.coprocessor import Coprocessor
from deliberate.core.errors import CacheError, TextError
from deliberate.core.groups import latent_positions
from deliberate.core.tokens import STRETCH
from deliberate.core.tokens import token_ids as token_ids_of

_EMPTY = "the text is empty: give at least one character"


def tokenize(base: Base, text: str, *, further: bool = False) -> Int[Tensor, " token"]:
    """A text's tokens as the base reads them, with its start token where it has one.

    Args:
        base: Whose tokenizer is asked.
        text: At least one character.
        further: The text follows another, and so gets no start token.

    Raises:
        TextError: the text is empty, not Unicode, or longer than the base's positions.
    """
    token_ids = encode(base, text, further=further, most=base.positions)
    if base.positions is not None and len(token_ids) > base.positions:
        least = "at least " if len(text) > STRETCH else ""  # of a longer one not all was read
        raise TextError(
            f"the text has {least}{len(token_ids)} tokens and {base.id!r} reads at most "
            f"{base.positions}: shorten it or split it"
        )
    return token_ids


def encode(
    base: Base, text: str, *, further: bool = False, most: int | None = None
) -> Int[Tensor, " token"]:
    """What `tokenize` gives, of a text of any length.

    Args:
        base: Whose tokenizer is asked.
        text: At least one character.
        further: As in `tokenize`.
        most: Tokens after which the rest of a text of millions of characters is left unread.

    Raises:
        TextError: the text is empty or not Unicode.
    """
    check_text(text)
    token_ids = token_ids_of(base.tokenizer, text, special=not further, most=most)
    if not len(token_ids):
        raise TextError(_EMPTY)
    return token_ids.to(base.device)


def check_text(text: str) -> None:
    """Refuse what no base can read, without asking one.

    Raises:
        TextError: the text is empty or not Unicode.
    """
    try:
        text.encode()  # what was decoded carelessly holds halves of characters
    except UnicodeEncodeError as error:
        raise TextError(
            f"the text is not Unicode at character {error.start}: convert it to UTF-8"
        ) from error
    if not text:
        raise TextError(_EMPTY)


def prefill(base: Base, texts: Sequence[Int[Tensor, " _token"]]) -> list[Cache]:
    """Read texts, and keep each one's keys and values.

    Args:
        base: Reads them, all in one batch.
        texts: Token ids from `tokenize`; lengths may differ.

    Raises:
        TypeError: `texts` is a string or one tensor, or holds something else than token ids.
        ValueError: `texts` is empty.
    """
    _check_texts(texts)
    padded = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    reading = base.read(padded)
    return caches(reading, [len(text) for text in texts], origin=base.origin)


def _check_texts(texts: object) -> None:
    """Refuse what is no list of token ids: a string, for one, is a sequence as well.

    Raises:
        TypeError: names what was given.
        ValueError: there is no text.
    """
    rule = "texts must be a list of token ids from `tokenize`"
    if not isinstance(texts, Sequence) or isinstance(texts, str):
        raise TypeError(f"{rule}, got one {type(texts).__name__}")
    if not texts:
        raise ValueError(f"{rule}, got an empty one")
    for text in texts:
        if not isinstance(text, Tensor):
            raise TypeError(f"{rule}, got a list of {type(text).__name__}")
        if text.ndim != 1:
            raise TypeError(f"{rule}, got a tensor of shape {tuple(text.shape)} in it")


@torch.no_grad()
def augment(
    base: Base,
    coprocessor: Coprocessor,
    plain: Sequence[Cache],
    *,
    name: str = "",
    fingerprint: str = "",
    reading: Reading | None = None,
) -> list[Cache]:
    """Ask for latents over caches, and let the base read them.

    Args:
        base: Made the caches, and reads the latents.
        coprocessor: Writes the latents.
        plain: Caches without latents; left as they were.
        name: The coprocessor's name, to be noted in the caches.
        fingerprint: The coprocessor's fingerprint, likewise.
        reading: The same texts as they were read just now, for a coprocessor that reads more of
            them than caches keep.

    Raises:
        CacheError: a cache has latents, or no room for them in the base's positions.
        TypeError: `coprocessor` is none, but what `load_coprocessor` returned with it.
    """
    if hasattr(coprocessor, "coprocessor"):
        kind = type(coprocessor).__name__
        raise TypeError(f"coprocessor must be a Coprocessor, got {kind}: pass its `.coprocessor`")
    count = coprocessor.config.latents
    for cache in plain:
        if cache.latents is not None:
            raise CacheError("the cache has latents already: augment its text part")
    lengths = torch.tensor([len(cache.token_ids) for cache in plain], device=base.device)
    anchors = lengths[:, None] - 1
    position_ids = latent_positions(anchors, latents=count, positions=coprocessor.config.positions)
    check_latents_fit(base, coprocessor, int(lengths.max()))
    latents = coprocessor(reading or stack(plain, base.trunk), anchors)[:, 0]
    latents = latents.to(base.model.dtype)
    batch = Batch(plain)
    hidden = batch.feed(base.trunk, latents, position_ids=position_ids[:, 0])
    origin = dataclasses.replace(base.origin, coprocessor=name, coprocessor_fingerprint=fingerprint)
    return [
        dataclasses.replace(
            cache,
            **batch.grown(row, cache, position_ids[row, 0]),
            latents=latents[row],
            latents_last_hidden=hidden[row, -1],
            origin=origin,
        )
        for row, cache in enumerate(plain)
    ]


def has_room(base: Base, coprocessor: Coprocessor, tokens: int) -> bool:
    """Whether the latents after a text of that many tokens stand within the base's positions."""
    config = coprocessor.config
    last = tokens - 1 + (config.latents if config.positions == "after" else 0)
    return base.positions is None or last < base.positions


def check_latents_fit(base: Base, coprocessor: Coprocessor, tokens: int) -> None:
    """Refuse a text that leaves no room for latents.

    Raises:
        CacheError: there is none after that many tokens.
    """
    if not has_room(base, coprocessor, tokens):
        raise CacheError(
            f"the text has {tokens} tokens and {base.id!r} reads at most "
            f"{base.positions}: there is no room for {coprocessor.config.latents} latents"
        )


@torch.no_grad()
def extend(base: Base, cache: Cache, token_ids: Int[Tensor, " token"]) -> Cache:
    """Read more text after a cache, and after its latents if it has any.

    Args:
        base: Made the cache.
        cache: Left as it was.
        token_ids: Further text, without a start token; may be empty.

    Raises:
        TextError: no room is left for it in the base's positions.
    """
    count = len(token_ids)
    if not count:
        return cache
    check_room(base, cache, count)
    batch = Batch([cache])
    hidden = batch.feed(base.trunk, base.embed(token_ids)[None])[0, -1]
    return followed_by(cache, batch, token_ids, hidden)


def followed_by(
    cache: Cache,
    batch: Batch,
    token_ids: Int[Tensor, " new"],
    last_hidden: Float[Tensor, " hidden"],
) -> Cache:
    """A cache and the text after it, where a batch has read that.

    Args:
        cache: Left as it was.
        batch: Made of the cache alone, and fed with the text last.
        token_ids: The text, at least one token.
        last_hidden: At its last token.
    """
    count = len(token_ids)
    position_ids = cache.next_position + torch.arange(count, device=token_ids.device)
    if cache.latents is None:
        changed = {"last_hidden": last_hidden}
    else:
        changed = {"latents_last_hidden": last_hidden, "followed": cache.followed + count}
    return dataclasses.replace(
        cache,
        **batch.grown(0, cache, position_ids),
        token_ids=torch.cat([cache.token_ids, token_ids]),
        **changed,
    )


def without_latents(base: Base, cache: Cache) -> Cache:
    """The plain cache over all of a cache's text, whatever followed its latents read anew."""
    text = cache.text_part()
    return extend(base, text, cache.token_ids[len(text.token_ids) :])


def check_room(base: Base, cache: Cache, tokens: int) -> None:
    """Refuse to read on past the base's positions.

    Raises:
        TextError: there is no room for `tokens` more tokens.
    """
    if base.positions is not None and cache.next_position + tokens > base.positions:
        raise TextError(
            f"the cache ends at position {cache.next_position - 1} and {base.id!r} reads at most "
            f"{base.positions}: there is no room for {tokens} more tokens"
        )
