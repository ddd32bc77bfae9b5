"""Batches that there is memory for: where one is too large, the rest goes on in smaller ones.

passages --batches--> numbers --do--> done | out of memory --half as many--> the same once more
"""

import gc
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from deliberate.core.errors import DeliberateError
from deliberate.core.passages import Passage, batches, cut

Done = TypeVar("Done")

SAID = (
    "out of memory.",  # CUDA, ROCm, XPU
    "CUDA error: out of memory",
    "MPS backend out of memory",
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_SUPPORTED",  # what cuDNN says of a batch too large for it
)
"""By what a `RuntimeError` of torch is known to be one of memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there was too little memory, of any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in SAID)


def give_back() -> None:
    """Free what a failed try held, once its error is gone, for the device to have it back."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def within_memory(what: str, way_out: str) -> Generator[None]:
    """Say so where the memory is too small for what has no smaller batch.

    Args:
        what: What is done, as in "out of memory timing latents".
        way_out: What to do about it, as an error ends with.

    Raises:
        DeliberateError: the memory is too small.
        MemoryError: never; it becomes the former.
        RuntimeError: something else than memory went wrong.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeliberateError(f"out of memory {what}: {way_out}") from error


@dataclass(kw_only=True)
class Smaller:
    """What is to be done where a batch is too large for the memory."""

    on_less: Callable[[int], None]
    """Told of most passages in a batch from now on."""

    way_out: str
    """What to do where even the smallest batch is too large, as an error ends with."""

    generators: Sequence[torch.Generator] = ()
    """Set back, so that what is done again draws again what it drew."""

    most: int | None = None
    """Most passages in a batch since one was lowered: where it is used again, no more are tried."""


@dataclass(frozen=True, kw_only=True)
class Batch(Generic[Done]):
    """Passages that went together."""

    numbers: list[int]
    """Which they are. Those beyond `own` only went along, and count in another batch."""

    own: int
    """How many of them are this batch's own."""

    done: Done
    """What came of them."""


def batch_by_batch(
    chosen: Sequence[Passage],
    do: Callable[[list[int]], Done],
    *,
    size: int,
    least: int = 2,
    smaller: Smaller | None = None,
) -> Iterator[Batch[Done]]:
    """Do something with all passages, each of them once.

    A passage that a batch of more than one would be left alone in has another one go along.

    Args:
        chosen: The passages.
        do: From the numbers of those that go together.
        size: Most of them in a batch.
        least: Fewest that may be in one, where the memory is too small for more.
        smaller: What is done there. None: the error goes on to the caller.

    Yields:
        The batches, those of the longest passages first.

    Raises:
        DeliberateError: the smallest batch is too large for the memory.
        RuntimeError: as `do`, as is the next.
        MemoryError: never with `smaller`, where it becomes the first.
    """
    if smaller is not None and smaller.most is not None:
        size = min(size, max(least, smaller.most))
    left = list(batches(chosen, size=size))
    while left:
        numbers = [*left[0], *_beside(chosen, left[0], size)]
        before = [each.get_state() for each in smaller.generators] if smaller else []
        try:
            done = do(numbers)
        except (RuntimeError, MemoryError) as error:
            if smaller is None or not is_out_of_memory(error):
                raise
            if len(numbers) <= least:
                raise DeliberateError(_too_small(len(numbers), smaller)) from error
        else:
            yield Batch(numbers=numbers, own=len(left.pop(0)), done=done)
            continue
        give_back()
        for generator, state in zip(smaller.generators, before, strict=True):
            generator.set_state(state)
        size = max(least, min(size // 2, len(numbers) - 1))
        left = cut([number for each in left for number in each], size=size)
        smaller.most = size
        smaller.on_less(size)


def _beside(chosen: Sequence[Passage], numbers: list[int], size: int) -> list[int]:
    """A passage to go along with one that is alone: of another document, and no longer."""
    if len(numbers) > 1 or size == 1 or len(chosen) == 1:
        return []
    (alone,) = numbers
    own = chosen[alone]
    others = (number for number in range(len(chosen)) if number != alone)
    return [
        min(
            others,
            key=lambda number: (
                chosen[number].document == own.document,
                len(chosen[number].token_ids) > len(own.token_ids),
                abs(number - alone),
            ),
        )
    ]


def _too_small(count: int, smaller: Smaller) -> str:
    together = "by itself" if count == 1 else f"with {count} together"
    return f"out of memory with a text {together}: {smaller.way_out}"
