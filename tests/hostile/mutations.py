"""Damage and lies: what is done to a good file, drawn from a seed."""

import json
import random
import struct
from collections.abc import Callable

NUMBERS = (-1, 0, 1, 3, 2**31, 2**32, 2**62, 2**63, 2**64, 10**30, 0.5, 1e300)
VALUES = (*NUMBERS, True, None, "", "x", [], {}, [[]], {"a": 1}, "\x1b[2J", "../../etc/passwd")
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "F4", "C64", "f32")
LENGTHS = (0, 1, 2, 7, 8, 2**16, 2**24, 2**31, 2**32, 2**48, 2**63, 2**64 - 1)


def truncated(rng: random.Random, content: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def longer(rng: random.Random, content: bytes) -> bytes:
    return content + rng.randbytes(rng.randint(1, 64))


def bit_flipped(rng: random.Random, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def overwritten(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content))
    block = rng.choice((rng.randbytes(16), b"\0" * 64, b"\xff" * 64, b"[" * 64, b"9" * 64))
    return content[:start] + block + content[start + len(block) :]


def cut_out(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.randint(1, 64) :]


def said_twice(rng: random.Random, content: bytes) -> bytes:
    start = rng.randrange(len(content))
    block = content[start : start + rng.randint(1, 64)]
    return content[:start] + block + content[start:]


def lying(rng: random.Random, value: object) -> object:
    """A value of JSON with one thing in it that is not so."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key, changed = rng.choice(list(value)), dict(value)
        match rng.randrange(6):
            case 0:
                del changed[key]
            case 1:
                changed[rng.choice(("", "x", key + " ", key.upper()))] = changed.pop(key)
            case 2:
                changed[rng.choice(list(value))] = changed[key]
            case _:
                changed[key] = lying(rng, changed[key])
        return changed
    if isinstance(value, list) and value and rng.random() < 0.8:
        place, changed = rng.randrange(len(value)), list(value)
        changed[place] = lying(rng, changed[place])
        return rng.choice((changed, changed[::-1], [*changed, 1], changed[1:]))
    if isinstance(value, int) and rng.random() < 0.4:
        return value + rng.choice((-8, -4, -1, 1, 4, 8))
    return rng.choice((*VALUES, *DTYPES))


def with_key_twice(rng: random.Random, text: str) -> str:
    """JSON that gives a key a second time, with what another key has, if it has keys."""
    value = json.loads(text)
    if not isinstance(value, dict) or not value:
        return text
    key = rng.choice(list(value))
    other = json.dumps(value[rng.choice(list(value))])
    return f"{{{json.dumps(key)}: {other}, {text.strip()[1:]}"


def forged_text(rng: random.Random, text: str) -> str:
    match rng.randrange(8):
        case 0:
            return with_key_twice(rng, text)
        case 1:
            depth = rng.choice((70, 1_000, 100_000))
            return text.strip()[:-1] + ', "deep": ' + "[" * depth + "]" * depth + "}"
        case 2:
            return text.strip()[:-1] + f', "odd": {rng.choice(("NaN", "-Infinity", "1e999"))}}}'
        case 3:
            return text.strip()[:-1] + ', "half": "\\ud800"}'
        case _:
            return json.dumps(lying(rng, json.loads(text)))


def header_forged(rng: random.Random, content: bytes) -> bytes:
    [size] = struct.unpack("<Q", content[:8])
    text = forged_text(rng, content[8 : 8 + size].decode()).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


def length_forged(rng: random.Random, content: bytes) -> bytes:
    [size] = struct.unpack("<Q", content[:8])
    length = rng.choice((*LENGTHS, size - 1, size + 1, len(content) - 8, len(content)))
    return struct.pack("<Q", length) + content[8:]


MUTATIONS: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    truncated,
    longer,
    bit_flipped,
    overwritten,
    cut_out,
    said_twice,
    header_forged,
    header_forged,
    header_forged,
    length_forged,
)


def mutate(rng: random.Random, content: bytes) -> bytes:
    """A damaged or forged file; now and then in two ways at once."""
    for _ in range(rng.choice((1, 1, 1, 2))):
        try:
            content = rng.choice(MUTATIONS)(rng, content) or b"\0"
        except (
            ValueError,
            struct.error,
            IndexError,
            RecursionError,
        ):  # no such file now
            return content
    return content
