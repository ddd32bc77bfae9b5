"""Whether a base can go on from a cache file, whatever its header says of who made it.

cache file, base --check_fit--> nothing, or one sentence that says what differs
"""

import functools

import torch

from deliberate.core.base import Base
from deliberate.core.cache_file import CacheFile, check_base
from deliberate.core.errors import CacheError


def check_fit(file: CacheFile, base: Base) -> None:
    """Refuse a cache file that a base cannot go on from.

    Args:
        file: Already verified: a fingerprint is a string, and forged as easily as one.
        base: The base at hand.

    Raises:
        CacheError: another base made it, or its shapes, tokens or positions are not this one's.
    """
    check_base(file.origin, base=base.id, fingerprint=base.fingerprint, path=file.path)
    name, layers = repr(str(file.path)), _layers(base)
    if file.num_layers != len(layers):
        raise CacheError(
            f"{name} has {file.num_layers} layers and {base.id!r} has {len(layers)}: prefill again"
        )
    for layer, wanted in enumerate(layers):
        for part, (heads, width) in zip(("keys", "values"), wanted, strict=True):
            shape = file.shapes[f"layers.{layer}.{part}"]
            if (shape[0], shape[2]) != (heads, width):
                raise CacheError(
                    f"{name}: layers.{layer}.{part} has {shape[0]} heads of {shape[2]} numbers and "
                    f"{base.id!r} has {heads} of {width}: prefill again"
                )
    if file.shapes["last_hidden"][0] != base.hidden:
        raise CacheError(
            f"{name} has states of {file.shapes['last_hidden'][0]} numbers and {base.id!r} of "
            f"{base.hidden}: prefill again"
        )
    for part, most in (("token_ids", base.vocab), ("position_ids", base.positions)):
        numbers = file.tensor(part)
        if int(numbers.min()) < 0 or (most is not None and int(numbers.max()) >= most):
            raise CacheError(
                f"{name}: {part} are from {int(numbers.min())} to {int(numbers.max())} and "
                f"{base.id!r} knows 0 to {'any' if most is None else most - 1}: prefill again"
            )


@functools.lru_cache(maxsize=1)
def _layers(base: Base) -> list[list[tuple[int, int]]]:
    """Heads and their width, of each layer's keys and values, as the base makes them."""
    reading = base.read(torch.zeros((1, 1), dtype=torch.int64, device=base.device))
    return [
        [(part.shape[1], part.shape[3]) for part in layer]
        for layer in zip(reading.keys, reading.values, strict=True)
    ]
