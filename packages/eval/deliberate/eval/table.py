"""Perplexities by token ahead, as changes and with intervals: of all passages or of some.

Losses --> perplexity, change against the base, change against each other condition
"""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from deliberate.core.measure import AHEAD_REPORTED, Losses
from deliberate.eval.bootstrap import Change, changes
from deliberate.eval.finite import finite

Row = dict[str, Change]
"""By token ahead."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Table:
    """What losses come to."""

    losses: Losses = field(repr=False)
    seed: int
    """Of the resampling."""

    @property
    def tokens(self) -> list[int]:
        """The tokens after the anchor that are reported."""
        return [token for token in AHEAD_REPORTED if token <= self.losses.counts.shape[1]]

    @cached_property
    def perplexity(self) -> dict[str, dict[str, float]]:
        """Perplexity of the base and each condition by token ahead."""
        values = {name: self.losses.perplexity(name) for name in self.losses.sums}
        return {name: {str(t): row[t - 1] for t in self.tokens} for name, row in values.items()}

    @cached_property
    def changes(self) -> dict[str, Row]:
        """Change against the base of each condition by token ahead, with its interval."""
        return {name: self._row(name, "base") for name in self.losses.sums if name != "base"}

    @cached_property
    def against(self) -> dict[str, Row]:
        """Change from each control and baseline to the latents, with its interval."""
        others = [name for name in self.losses.sums if name not in {"base", "latents"}]
        return {name: self._row("latents", name) for name in others}

    def to_dict(self) -> dict[str, Any]:
        """Plain values; none at a token that no answer is long enough for."""
        return finite({
            "perplexity": self.perplexity,
            "change_percent": _plain(self.changes),
            "latents_against": _plain(self.against),
        })

    def _row(self, name: str, against: str) -> Row:
        row = changes(self.losses, name, against=against, seed=self.seed)
        return {str(token): row[token - 1] for token in self.tokens}


def _plain(rows: dict[str, Row]) -> dict[str, Any]:
    return {
        name: {token: asdict(change) for token, change in row.items()} for name, row in rows.items()
    }
