"""The header of a safetensors file, checked before anything believes it.

    file --read_header--> names, shapes, dtypes, metadata

The library checks headers too. It takes a name that is given twice, though, and its readers in
other languages need not agree on which of the two counts; and what it says of a damaged one is
for its authors. A header that passes here describes the whole file, byte by byte.
"""

import math
import struct
from dataclasses import dataclass
from io import BufferedIOBase
from typing import Any

from deliberate.core import plain_json

MOST_BYTES = 4 << 20
"""Of a header. That of a whole model of 100 layers has a twentieth of it."""

FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a number, by its dtype: those of keys, values, states and weights."""

NAMES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""What torch calls those."""

_BYTES = FLOATS | {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1}
_BYTES |= {"BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}

_LENGTH = struct.Struct("<Q")
_METADATA = "__metadata__"
_KEYS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One tensor, as a header describes it."""

    dtype: str
    """As the file names it."""

    shape: tuple[int, ...]
    """Its axes."""

    begin: int
    """Its first byte, counted from the end of the header."""

    end: int
    """The byte after its last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says of itself."""

    parts: dict[str, Part]
    """Its tensors by name."""

    metadata: dict[str, str]
    """Its strings."""


def read_header(file: BufferedIOBase, size: int) -> Header:
    """The header of a file, without its tensors.

    Args:
        file: At its beginning.
        size: Bytes of the whole file.

    Raises:
        ValueError: it is no such file, or not all of it, or its header is at odds with itself.
    """
    if size < _LENGTH.size:
        raise ValueError(f"it has {size} bytes, too few for a header")
    [length] = _LENGTH.unpack(file.read(_LENGTH.size))
    if length > MOST_BYTES:
        raise ValueError(f"its header would have {length:,} bytes, and may have {MOST_BYTES:,}")
    if _LENGTH.size + length > size:
        raise ValueError(f"its header would have {length:,} bytes, and the whole file has {size:,}")
    try:
        content = plain_json.parse(file.read(length))
    except ValueError as error:
        raise ValueError(f"its header cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError("its header is no JSON object")
    metadata = _strings(content.pop(_METADATA, {}))
    parts = {name: _part(name, about) for name, about in content.items()}
    _check_extent(parts, size - _LENGTH.size - length)
    return Header(parts=parts, metadata=metadata)


def _strings(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise ValueError("its metadata are not strings")
    return value


def _part(name: str, about: Any) -> Part:
    if not isinstance(about, dict) or set(about) != _KEYS:
        raise ValueError(f"tensor {name[:80]!r} is not described by {', '.join(sorted(_KEYS))}")
    dtype, shape, offsets = about["dtype"], about["shape"], about["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _BYTES:
        raise ValueError(f"tensor {name[:80]!r} has a dtype that is unknown here: {dtype!r:.40}")
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise ValueError(f"tensor {name[:80]!r} has a shape or offsets that are not counts")
    begin, end = offsets
    if math.prod(shape) * _BYTES[dtype] != end - begin:
        raise ValueError(
            f"tensor {name[:80]!r} has {end - begin} bytes, which is not what {dtype} "
            f"{shape!r:.80} takes"
        )
    return Part(dtype=dtype, shape=tuple(shape), begin=begin, end=end)


def _are_counts(value: Any) -> bool:
    # Beyond 64 bits no reader counts; and of many axes no tensor is made.
    return (
        isinstance(value, list)
        and len(value) <= 16
        and all(type(each) is int and 0 <= each < 1 << 63 for each in value)
    )


def _check_extent(parts: dict[str, Part], size: int) -> None:
    """See that the tensors lie one after the other, over all bytes after the header.

    Raises:
        ValueError: they do not.
    """
    place = 0
    for name, part in sorted(parts.items(), key=lambda item: (item[1].begin, item[1].end)):
        if part.begin != place:
            how = "overlaps another" if part.begin < place else "leaves a gap before it"
            raise ValueError(f"tensor {name[:80]!r} begins at byte {part.begin} and {how}")
        place = part.end
    if place != size:
        raise ValueError(f"its tensors take {place:,} bytes, and {size:,} follow its header")
