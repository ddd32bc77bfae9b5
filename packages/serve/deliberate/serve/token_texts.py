"""What tokens say where they stand: many tokenizers drop the space before one that stands alone.

tokens before, a token --decode with and without it--> the text that it adds
"""

from collections.abc import Callable, Sequence
from typing import cast

from deliberate.core.base import Base

BEFORE = 8
"""Tokens before one that may change what it says."""


def added(base: Base, before: Sequence[int], tokens: Sequence[int]) -> list[str]:
    """What each of several tokens would add to a text; nothing while a character is unfinished.

    Args:
        base: Whose tokenizer is taken.
        before: The text's tokens so far.
        tokens: Any of which may come next.
    """
    decode = cast(Callable[[list[int]], str], base.tokenizer.decode)
    recent = list(before[-BEFORE:])
    certain = len(decode(recent).rstrip("\ufffd"))
    whole = [decode([*recent, token]) for token in tokens]
    return ["" if text.endswith("\ufffd") else text[certain:] for text in whole]
