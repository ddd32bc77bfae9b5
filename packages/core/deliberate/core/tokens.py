"""Texts to token ids, a stretch at a time: a tokenizer keeps some hundred bytes of each token.

texts --cut into pieces, between two words--> groups of bounded size --tokenizer--> token ids

A text of up to `STRETCH` characters is read as the tokenizer reads it. Of a longer one no token
reaches over a cut, which changes no token of tokenizers that keep words apart.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

STRETCH = 1 << 20
"""Characters that a tokenizer is given at once."""


class Piece(NamedTuple):
    """A text, or a stretch of one, and its tokens."""

    text: str

    ids: list[int]
    """With the special tokens around the whole text, at its ends alone."""

    offsets: Sequence[tuple[int, int]]
    """Where each token stands in the piece, if that was asked for."""

    last: bool
    """Whether its text ends with it."""


def read(
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    *,
    special: bool = True,
    offsets: bool = False,
) -> Iterator[Piece]:
    """The pieces of texts in their order, tokenized when they are asked for.

    Args:
        tokenizer: For offsets a fast one, which knows where tokens stand.
        texts: Of any length.
        special: Whether each text has the special tokens that the tokenizer puts around one.
        offsets: Whether they are wanted.
    """
    for group in _groups(texts):
        pieces = [text for text, _, _ in group]
        places: list[Sequence[tuple[int, int]]] = [()] * len(pieces)
        if offsets:
            found: Mapping[str, Any] = tokenizer(
                pieces, add_special_tokens=special, return_offsets_mapping=True, verbose=False
            )
            tokens, places = found["input_ids"], found["offset_mapping"]
        else:
            tokens = _ids(tokenizer, pieces, special=special)
        for (text, first, last), ids, place in zip(group, tokens, places, strict=True):
            before, after = (0, 0) if (first and last) or not special else _around(tokenizer)
            own = slice(0 if first else before, len(ids) - (0 if last else after))
            yield Piece(text, ids[own], place[own], last)


def token_lists(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], *, special: bool = True
) -> list[list[int]]:
    """The tokens of each text; arguments as in `read`."""
    found: list[list[int]] = []
    ended = True
    for piece in read(tokenizer, texts, special=special):
        if ended:
            found.append(piece.ids)
        else:
            found[-1] += piece.ids
        ended = piece.last
    return found


def token_ids(
    tokenizer: PreTrainedTokenizerBase, text: str, *, special: bool = True, most: int | None = None
) -> Int[Tensor, " token"]:
    """The tokens of a text.

    Args:
        tokenizer: Whose they are.
        text: Of any length.
        special: As in `read`.
        most: Tokens after which no further stretch of a long text is read: more of them say no
            more than that it is too long.
    """
    parts, count = [], 0
    for piece in read(tokenizer, [text], special=special):
        parts.append(torch.tensor(piece.ids, dtype=torch.long))
        count += len(piece.ids)
        if most is not None and count > most:
            break
    return torch.cat(parts)


def _groups(texts: Iterable[str]) -> Iterator[list[tuple[str, bool, bool]]]:
    """Pieces that are tokenized together: of each its text, and whether it is its first and last.

    A group has at most `STRETCH` characters.
    """
    group, size = [], 0
    for text in texts:
        start, whole = 0, False
        while not whole:
            end = _end(text, start)
            whole = end == len(text)
            if group and size + end - start > STRETCH:
                yield group
                group, size = [], 0
            group.append((text[start:end], start == 0, whole))
            size += end - start
            start = end
    if group:
        yield group


def _end(text: str, start: int) -> int:
    """Where a piece ends: before a single space between two words, or where it must."""
    end = start + STRETCH
    if end >= len(text):
        return len(text)
    space = end
    while (space := text.rfind(" ", start + STRETCH // 2, space)) >= 0:
        if not text[space - 1].isspace() and not text[space + 1].isspace():
            return space
    return end


def _around(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """How many special tokens a tokenizer puts before a text, and how many after it."""
    bare, whole = (tokenizer("a", add_special_tokens=each)["input_ids"] for each in (False, True))
    extra = len(whole) - len(bare)
    before = (n for n in range(extra + 1) if whole[n : n + len(bare)] == bare)
    first = next(before, 0)
    return first, extra - first


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str], *, special: bool) -> list[list[int]]:
    """The token ids of texts, as calling the tokenizer gives them.

    A call also finds each token's place in its text, which takes two fifths of the time. So only
    the first text is given to one, which sets truncation and the like; for the others the
    library behind the tokenizer is asked itself, unless the tokenizer has a way of its own.
    """
    kind, plain = type(tokenizer), PreTrainedTokenizerFast
    own = not isinstance(tokenizer, plain) or (
        kind.__call__ is not plain.__call__ or kind._encode_plus is not plain._encode_plus
    )
    asked = texts if own else texts[:1]
    found = tokenizer(asked, add_special_tokens=special, verbose=False)["input_ids"]
    if own or len(texts) == 1:
        return found
    others = tokenizer.backend_tokenizer.encode_batch_fast(texts[1:], add_special_tokens=special)
    return found + [each.ids for each in others]
