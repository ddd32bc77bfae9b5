"""Content addresses: a cache is named by its text, its base and the numbers it is held in.

    base's fingerprint, dtype, token ids --SHA-256--> 32 hexadecimal digits

The hash runs over the token ids one after the other, so that one pass over a text gives the
addresses of all its beginnings.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from deliberate.core.cache_file import SUFFIX

_DIGITS = 32
_NAME = re.compile(rf"[0-9a-f]{{{_DIGITS}}}{re.escape(SUFFIX)}")
_BYTES = 8  # of a token id


def address(
    token_ids: Int[Tensor, " token"] | Sequence[int], *, fingerprint: str, dtype: str
) -> str:
    """The address of a text's cache.

    Args:
        token_ids: The text, with its start token.
        fingerprint: The base's.
        dtype: In which keys and values are held, such as `float32`.
    """
    [found] = addresses(token_ids, [len(token_ids)], fingerprint=fingerprint, dtype=dtype)
    return found


def addresses(
    token_ids: Int[Tensor, " token"] | Sequence[int],
    lengths: Iterable[int],
    *,
    fingerprint: str,
    dtype: str,
) -> Iterator[str]:
    """The addresses of a text's beginnings.

    Args:
        token_ids: The text, with its start token.
        lengths: Tokens of each beginning, growing and at most the text's.
        fingerprint: The base's.
        dtype: In which keys and values are held.
    """
    content = torch.as_tensor(token_ids).cpu().long().numpy().astype("<i8").tobytes()
    digest = hashlib.sha256(f"{fingerprint} {dtype}\n".encode())
    done = 0
    for length in lengths:
        digest.update(content[done * _BYTES : length * _BYTES])
        done = length
        yield digest.copy().hexdigest()[:_DIGITS]


def is_own_name(path: Path) -> bool:
    """Whether a file is named as the store names what it writes."""
    return _NAME.fullmatch(path.name) is not None


def file_name(address: str) -> str:
    """What the store calls the file of that address."""
    return address + SUFFIX
