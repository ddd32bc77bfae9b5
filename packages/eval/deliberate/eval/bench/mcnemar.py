"""McNemar's test: do two ways of answering the same questions differ?

Only the questions count that one way gets right and the other wrong.
"""

import math
from dataclasses import dataclass

FEWEST_FOR_CHI_SQUARE = 25
"""Below this many differing questions the binomial distribution is summed instead."""

LEVEL = 0.05
"""Below this p a difference is told from none."""

FEWEST_TO_TELL = 6
"""Of fewer questions `p` is never below `LEVEL`: 5 that all differ the same way have 2 / 2**5."""


@dataclass(frozen=True, slots=True, kw_only=True)
class McNemar:
    """A test's counts and what they come to."""

    gained: int
    """Questions that only the second way gets right."""

    lost: int
    """Questions that only the first way gets right."""

    @property
    def exact(self) -> bool:
        """Whether `p` is summed from the binomial distribution."""
        return self.gained + self.lost < FEWEST_FOR_CHI_SQUARE

    @property
    def p(self) -> float:
        """Two-sided: how likely so uneven a split is if neither way is better."""
        count = self.gained + self.lost
        if self.exact:
            tail = sum(math.comb(count, k) for k in range(min(self.gained, self.lost) + 1))
            return min(1.0, 2 * tail / 2**count)
        apart = max(0, abs(self.gained - self.lost) - 1)  # corrected for continuity
        return math.erfc(apart / math.sqrt(2 * count))


def mcnemar(first: list[bool], second: list[bool]) -> McNemar:
    """Test two ways of answering, each question's outcome in the same order."""
    pairs = list(zip(first, second, strict=True))
    return McNemar(
        gained=sum(b and not a for a, b in pairs), lost=sum(a and not b for a, b in pairs)
    )
