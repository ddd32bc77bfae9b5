"""A gate on asking: what share of the gain is left for what share of the calls.

    Observed --> entropy and gain an anchor --thresholds--> calls, gain in percent

Latents are asked for only where the base alone is unsure of the next token. The threshold that
keeps most of the gain is chosen on one half of the documents and checked on the other, since it
would flatter itself on the texts that it was chosen on.

Source: the abstract of arXiv:2412.17747, by which a cache may be deemed not to require extra
computation; how to tell, and the measurement, are ours.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from deliberate.core.gate import asks
from deliberate.core.measure import Observed
from deliberate.core.passages import Passage
from deliberate.core.verdict import FEWEST_UNITS
from deliberate.eval.bootstrap import FEWEST_DOCUMENTS, ratio, summed

SHARE = 90
"""Percent of the gain that a gate is to keep."""

STEPS = 40
"""Parts into which a curve divides the calls."""

Values = np.ndarray
"""One number an anchor, on the CPU."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Gains:
    """What latents gain at each anchor, and how unsure the base alone is there."""

    entropy: Values
    """Of the next token, in nats."""

    gains: dict[str, Values]
    """The base's loss less that with latents, in nats: at token `1`, and over `all` tokens ahead
    on average."""

    passages: Values
    """Which passage each anchor is in."""

    documents: Values
    """Which document that is of."""

    def units(self, *, documents: bool) -> Values:
        """Each anchor's document or passage."""
        return self.documents if documents else self.passages

    def of(self, those: Values) -> "Gains":
        """Those of some anchors alone."""
        return Gains(
            entropy=self.entropy[those],
            gains={name: gain[those] for name, gain in self.gains.items()},
            passages=self.passages[those],
            documents=self.documents[those],
        )


class GainsObserved:
    """Collects what latents gain while they are measured: three numbers an anchor."""

    def __init__(self, name: str, chosen: Sequence[Passage]) -> None:
        """Begin with nothing.

        Args:
            name: The condition of the latents.
            chosen: The passages that are measured.
        """
        self._name, self._chosen = name, chosen
        self._parts: list[Gains] = []

    def __call__(self, observed: Observed) -> None:
        """Add a batch."""
        counted = observed.counted
        there = counted[..., 0]  # has a token ahead
        gain = observed.losses["base"].double() - observed.losses[self._name].double()
        mean = (gain * counted).sum(-1) / counted.sum(-1).clamp(min=1)
        rows = there.nonzero()[:, 0].cpu().numpy()
        documents = [self._chosen[number].document for number in observed.passages]
        self._parts.append(
            Gains(
                entropy=observed.entropy[there].cpu().numpy(),
                gains={
                    "1": gain[..., 0][there].float().cpu().numpy(),
                    "all": mean[there].float().cpu().numpy(),
                },
                passages=np.array(observed.passages, dtype=np.int32)[rows],
                documents=np.array(documents, dtype=np.int32)[rows],
            )
        )

    @property
    def found(self) -> Gains:
        """Of all batches."""
        parts = self._parts
        return Gains(
            entropy=np.concatenate([part.entropy for part in parts]),
            gains={
                name: np.concatenate([part.gains[name] for part in parts])
                for name in parts[0].gains
            },
            passages=np.concatenate([part.passages for part in parts]),
            documents=np.concatenate([part.documents for part in parts]),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Gate:
    """What gates by entropy would keep of a gain."""

    gains: Gains = field(repr=False)
    seed: int
    """Of the halves and the resampling."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        tokens = {name: self._token(name) for name in self.gains.gains}
        return {"signal": "entropy", "unit": "nats", "tokens": tokens}

    def _token(self, name: str) -> dict[str, Any]:
        entropy, gain = self.gains.entropy, self.gains.gains[name].astype(float)
        return {
            "gain_nats": float(gain.mean()),
            "curve": curve(entropy, gain),
            "kept": self._kept(name),
        }

    def _kept(self, name: str) -> dict[str, Any] | None:
        """The gate that keeps most of the gain, chosen on one half and checked on the other."""
        whole = self.gains
        several, many = (len(np.unique(whole.documents)) >= n for n in (2, FEWEST_DOCUMENTS))
        if not is_gain(whole.gains[name], whole.units(documents=many), seed=self.seed):
            return None
        chosen_on, checked_on = halves(whole, seed=self.seed)
        gain, units = checked_on.gains[name].astype(float), checked_on.units(documents=many)
        threshold = keeping(chosen_on.entropy, chosen_on.gains[name], percent=SHARE)
        # A share of what may as well be nothing has no interval, so this half needs its own gain.
        if threshold is None or not is_gain(gain, units, seed=self.seed):
            return None
        _, unit = np.unique(units, return_inverse=True)
        asked = asks(checked_on.entropy, threshold)
        rows = np.stack([asked, np.ones(len(asked)), gain * asked, gain], axis=1)
        calls, anchors, kept, total = summed(rows, unit).T
        return {
            "share_percent": SHARE,
            "threshold": threshold,
            "calls_percent": asdict(ratio(calls, anchors, seed=self.seed)),
            "gain_percent": asdict(ratio(kept, total, seed=self.seed)),
            "chosen_on": len(np.unique(chosen_on.units(documents=several))),
            "checked_on": len(np.unique(checked_on.units(documents=several))),
        }


def curve(entropy: Values, gain: Values) -> list[dict[str, float]]:
    """Calls and what they keep of the gain, from all calls to none, at quantiles of the entropy.

    Args:
        entropy: Of each anchor's next token.
        gain: At each anchor. Where the sum is no gain there is no share of it, and no point.
    """
    total = gain.sum()
    if total <= 0:
        return []
    quantiles = np.quantile(entropy, np.arange(STEPS) / STEPS, method="higher").astype(float)
    thresholds = [*np.unique(quantiles), np.nextafter(float(entropy.max()), np.inf)]
    return [
        {
            "threshold": float(threshold),
            "calls_percent": float(100 * asked.mean()),
            "gain_percent": float(100 * gain[asked].sum() / total),
        }
        for threshold in thresholds
        for asked in [asks(entropy, threshold)]
    ]


def keeping(entropy: Values, gain: Values, *, percent: int) -> float | None:
    """The threshold of the fewest calls that keep so much of the gain; none if there is no gain.

    Args:
        entropy: Of each anchor's next token.
        gain: At each anchor.
        percent: Of the gain.
    """
    order = np.argsort(-entropy, kind="stable")
    ranked, kept = entropy[order], np.cumsum(gain[order], dtype=float)
    if kept[-1] <= 0:
        return None
    ends = np.append(ranked[1:] < ranked[:-1], True)  # equal ones are asked together
    enough = ends & (kept >= percent / 100 * kept[-1])
    return float(ranked[np.argmax(enough)])


def is_gain(gain: Values, units: Values, *, seed: int) -> bool:
    """Whether there is a gain that can be told: of enough texts, its interval above 0.

    Args:
        gain: At each anchor.
        units: What of each anchor is resampled.
        seed: Of the resampling.
    """
    found, unit = np.unique(units, return_inverse=True)
    if len(found) < FEWEST_UNITS:
        return False
    rows = np.stack([gain.astype(float), np.ones(len(gain))], axis=1)
    total, anchors = summed(rows, unit).T
    return ratio(total, anchors, seed=seed).low > 0


def halves(gains: Gains, *, seed: int) -> tuple[Gains, Gains]:
    """Two halves that have no document in common; of a single document, no passage.

    Args:
        gains: Of at least two passages.
        seed: Of the draw.
    """
    units = gains.units(documents=len(np.unique(gains.documents)) > 1)
    found = np.unique(units)
    drawn = np.random.default_rng(seed).permutation(found)[: len(found) // 2]
    first = np.isin(units, drawn)
    return gains.of(first), gains.of(~first)
