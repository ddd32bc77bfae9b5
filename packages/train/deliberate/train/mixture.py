"""How often each of several sources comes up.

weights --> quotas, of 1,000 rows
"""

import math
from collections.abc import Sequence

MIX = 1000
"""Positions over which each source comes up exactly as often as its weight says."""


def quotas(weights: Sequence[float]) -> tuple[int, ...]:
    """How many of `MIX` positions each weight gets, by the largest remainders.

    Raises:
        ValueError: a weight is too small beside the others to get one, or they are too large.
    """
    if not math.isfinite(MIX * sum(weights)):
        raise ValueError(
            f"data.train has a weight of {max(weights):g}, too large to compute with: only the "
            "ratio of the weights counts, so make all of them smaller"
        )
    exact = [MIX * weight / sum(weights) for weight in weights]
    found = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: found[index] - exact[index])
    for index in by_remainder[: MIX - sum(found)]:
        found[index] += 1
    if 0 in found:
        raise ValueError(
            f"data.train has weight {weights[found.index(0)]:g} beside {sum(weights):g} in all: a "
            f"source must have at least a share of 1/{MIX}; raise it, or leave the source out"
        )
    return tuple(found)
