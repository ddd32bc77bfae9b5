"""Latents that are asked for again while the base reads on: each asking is an anchor of its own.

    anchor p, every 2:   x0..p [z] x(p+1) x(p+2)    x0..p+2 [z] x(p+3) x(p+4)    x0..p+4 [z] ...

Where `generate` asks again it drops the old latents and reads what it decoded as text, so that the
tokens behind an asking are those behind an anchor at that place, and one pass measures them.
"""

from collections.abc import Callable, Iterator
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

Writing = Callable[[Any], Tensor]
"""From anchors, (batch, anchors), to what is read after them, (batch, anchors, latents, hidden)."""


def later_askings(
    writing: Writing, anchors: Int[Tensor, "batch anchors"], *, ahead: int, every: int | None
) -> Iterator[
    tuple[Int[Tensor, "batch anchors"], Float[Tensor, "batch anchors latents hidden"], int]
]:
    """When latents are written once more for the `ahead` tokens after each anchor, if at all.

    There is always room for them: the text before an asking is as much longer as the text after it
    is shorter.

    Args:
        writing: Writes them.
        anchors: Where they were written first.
        ahead: Tokens after each anchor.
        every: Tokens from one asking to the next; none asks once.

    Yields:
        Each asking's anchors, its latents, and how many tokens follow until the next.
    """
    step = every or ahead
    for read in range(step, ahead, step):
        yield anchors + read, writing(anchors + read), min(step, ahead - read)
