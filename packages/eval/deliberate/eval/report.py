"""What was measured, as Python values and as the JSON of `deliberate eval --json`."""

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from deliberate.core.base import Base
from deliberate.core.checkpoint import Trained
from deliberate.core.measure import AHEAD_REPORTED, Losses
from deliberate.eval.bootstrap import Change, changes, resampled_unit
from deliberate.eval.sample import Drawn, Sample


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """What was measured; `to_dict` is its JSON."""

    base: Base
    trained: Trained
    soft: Trained | None
    losses: Losses = field(repr=False)
    sample: Sample
    drawn: Drawn = field(repr=False)

    @property
    def tokens(self) -> list[int]:
        """The tokens after the anchor that are reported."""
        return [token for token in AHEAD_REPORTED if token <= self.losses.counts.shape[1]]

    @property
    def shuffled_from(self) -> str:
        """Whose latents the controls gave: another `document`'s, or only another `passage`'s.

        It is `passage` as soon as one batch had no other document to take them from.
        """
        losses = self.losses
        return "document" if bool((losses.partners != losses.documents).all()) else "passage"

    @cached_property
    def perplexity(self) -> dict[str, dict[str, float]]:
        """Perplexity of the base and each condition by token ahead."""
        values = {name: self.losses.perplexity(name) for name in self.losses.sums}
        return {name: {str(t): row[t - 1] for t in self.tokens} for name, row in values.items()}

    @cached_property
    def changes(self) -> dict[str, dict[str, Change]]:
        """Change against the base of each condition by token ahead, with its interval."""
        names = [name for name in self.losses.sums if name != "base"]
        rows = {name: changes(self.losses, name, seed=self.sample.seed) for name in names}
        return {name: {str(t): row[t - 1] for t in self.tokens} for name, row in rows.items()}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        writers = {"latents": self.trained, **({"soft": self.soft} if self.soft else {})}
        settings = {name: writer.coprocessor.describe() for name, writer in writers.items()}
        return {
            "perplexity": self.perplexity,
            "change_percent": {
                name: {token: asdict(change) for token, change in row.items()}
                for name, row in self.changes.items()
            },
            "anchors": int(self.losses.anchors.sum()),
            "passages": len(self.losses.anchors),
            "documents": len(self.losses.documents.unique()),
            "resampled": resampled_unit(self.losses),
            "shuffled_from": self.shuffled_from,
            "data": self.drawn.source,
            "pairs": self.drawn.pairs and asdict(self.drawn.pairs),
            "length": self.drawn.length,
            "seed": self.sample.seed,
            "parameters": {
                "base": self.base.num_parameters,
                **{name: writer.coprocessor.num_parameters for name, writer in writers.items()},
            },
            "setting": settings["latents"],
            **({"soft_setting": settings["soft"]} if self.soft else {}),
            "fingerprints": {
                "base": self.base.fingerprint,
                **{name: writer.fingerprint for name, writer in writers.items()},
            },
        }
