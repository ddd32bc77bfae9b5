"""What was measured, as Python values and as the JSON of `deliberate eval --json`."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch

from deliberate.core.base import Base
from deliberate.core.checkpoint import Trained
from deliberate.core.measure import Losses
from deliberate.eval.bootstrap import Change, resampled_unit
from deliberate.eval.examples import Examples
from deliberate.eval.gate import Gate
from deliberate.eval.sample import Drawn, Sample
from deliberate.eval.table import Table


@dataclass(frozen=True, eq=False, kw_only=True)
class Report:
    """What was measured; `to_dict` is its JSON."""

    base: Base
    trained: Trained
    baselines: Mapping[str, Trained]
    by_delay: Mapping[int, Losses] = field(repr=False)
    """In the order that the delays were asked for."""

    sample: Sample
    drawn: Drawn = field(repr=False)
    gate: Gate | None = field(default=None, repr=False)
    """What asking only at some anchors would keep of the gain; none where nothing is asked."""

    quoted: Examples | None = field(default=None, repr=False)
    """Of what was measured, the best and the worst."""

    @property
    def losses(self) -> Losses:
        """After the first delay."""
        return self.by_delay[self.sample.delays[0]]

    @cached_property
    def tables(self) -> dict[int, Table]:
        """A table each delay."""
        seed = self.sample.seed
        return {delay: Table(losses=each, seed=seed) for delay, each in self.by_delay.items()}

    @cached_property
    def domains(self) -> dict[str, Table]:
        """A table each domain after the first delay, those of most passages first."""
        if not self.drawn.domains:
            return {}
        losses, seed = self.losses, self.sample.seed
        domain = {passage.document: passage.domain for passage in self.drawn.passages}
        each = [domain[document] for document in losses.documents.tolist()]
        return {
            name: Table(losses=losses.of(torch.tensor([one == name for one in each])), seed=seed)
            for name, _ in Counter(each).most_common()
        }

    @cached_property
    def _gate(self) -> dict[str, Any] | None:
        return self.gate.to_dict() if self.gate else None

    @property
    def _table(self) -> Table:
        return self.tables[self.sample.delays[0]]

    @property
    def shuffled_from(self) -> str:
        """Whose latents the controls gave: another `document`'s, or only another `passage`'s.

        It is `passage` as soon as one batch had no other document to take them from.
        """
        losses = self.losses
        return "document" if bool((losses.partners != losses.documents).all()) else "passage"

    @property
    def perplexity(self) -> dict[str, dict[str, float]]:
        """Perplexity of the base and each condition by token ahead."""
        return self._table.perplexity

    @property
    def changes(self) -> dict[str, dict[str, Change]]:
        """Change against the base of each condition by token ahead, with its interval."""
        return self._table.changes

    @property
    def examples(self) -> dict[str, list[dict[str, Any]]]:
        """Where the latents helped and hurt most, in at most five documents each, as plain values.

        They quote the texts, which may be nobody else's to read.
        """
        return self.quoted.to_dict() if self.quoted else {"helped": [], "hurt": []}

    def to_dict(self, *, examples: bool = False) -> dict[str, Any]:
        """Plain values, as `--json` prints them.

        Args:
            examples: Whether they quote the texts too. What is printed, kept with a run and pushed
                with it does not.
        """
        writers = {"latents": self.trained, **self.baselines}
        settings = {name: writer.coprocessor.describe() for name, writer in writers.items()}
        several = len(self.tables) > 1
        return {
            **self._table.to_dict(),
            "delay": self.sample.delays[0],
            **(
                {"delays": {str(delay): table.to_dict() for delay, table in self.tables.items()}}
                if several
                else {}
            ),
            **(
                {
                    "domains": {
                        name: {**table.to_dict(), **_counts(table.losses)}
                        for name, table in self.domains.items()
                    }
                }
                if self.drawn.domains
                else {}
            ),
            **_counts(self.losses),
            "gate": self._gate,
            **({"examples": self.examples} if examples else {}),
            "every_token": self.sample.anchors is None,
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
            **{f"{name}_setting": settings[name] for name in self.baselines},
            "fingerprints": {
                "base": self.base.fingerprint,
                **{name: writer.fingerprint for name, writer in writers.items()},
            },
        }


def _counts(losses: Losses) -> dict[str, Any]:
    """How much losses are of, and what is resampled."""
    return {
        "anchors": int(losses.anchors.sum()),
        "passages": len(losses.anchors),
        "documents": len(losses.documents.unique()),
        "resampled": resampled_unit(losses),
    }
