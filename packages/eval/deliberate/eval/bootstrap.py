"""Intervals by resampling: of a change of perplexity over texts, of a mean over problems."""

from dataclasses import dataclass

import numpy as np

from deliberate.core.measure import Losses

RESAMPLES = 4000
FEWEST_DOCUMENTS = 20
"""With fewer documents than this, passages are resampled instead."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change in percent, or a mean, and its 95 % interval; nan where nothing was measured."""

    value: float
    low: float
    high: float


def resampled_unit(losses: Losses) -> str:
    """What is resampled: `document`, or `passage` where there are too few documents."""
    return "document" if len(losses.documents.unique()) >= FEWEST_DOCUMENTS else "passage"


def changes(losses: Losses, name: str, *, against: str = "base", seed: int = 0) -> list[Change]:
    """Change of perplexity against another condition at each token ahead, paired over texts.

    Args:
        losses: From `deliberate.core.measure`.
        name: The condition.
        against: The other one.
        seed: Of the resampling.
    """
    difference = (losses.sums[name] - losses.sums[against]).numpy()
    counts = losses.counts.numpy().astype(float)
    if resampled_unit(losses) == "document":
        _, unit = np.unique(losses.documents.numpy(), return_inverse=True)
        difference = summed(difference, unit)
        counts = summed(counts, unit)
    draws = _draws(len(counts), seed)
    with np.errstate(invalid="ignore"):  # a draw of answers that are all shorter says nothing
        drawn = 100 * np.expm1(draws @ difference / (draws @ counts))
        value = 100 * np.expm1(difference.sum(0) / counts.sum(0))
    # At a token that no answer is long enough for there is nothing to say.
    low, high = (np.full(len(value), np.nan) for _ in range(2))
    there = counts.sum(0) > 0
    low[there], high[there] = np.nanquantile(drawn[:, there], [0.025, 0.975], axis=0)
    return [
        Change(value=float(v), low=float(a), high=float(b))
        for v, a, b in zip(value, low, high, strict=True)
    ]


def mean(values: np.ndarray, *, seed: int = 0) -> Change:
    """The mean of one number a problem, resampled over problems.

    Args:
        values: One each.
        seed: Of the resampling.
    """
    drawn = _draws(len(values), seed) @ values / len(values)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Change(value=float(values.mean()), low=float(low), high=float(high))


def ratio(above: np.ndarray, below: np.ndarray, *, seed: int = 0) -> Change:
    """The sum of one number over the sum of another, in percent, resampled over texts.

    Args:
        above: One a text.
        below: One a text, of a sum that is clearly above 0: where some draws of it are near 0, or
            below, no interval says anything.
        seed: Of the resampling.
    """
    draws = _draws(len(above), seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = 100 * (draws @ above) / (draws @ below)
    low, high = np.quantile(drawn[np.isfinite(drawn)], [0.025, 0.975])
    value = 100 * above.sum() / below.sum()
    return Change(value=float(value), low=float(low), high=float(high))


def summed(rows: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Rows added up by the unit that each belongs to.

    Args:
        rows: Some numbers each.
        unit: Number of the unit that each belongs to, from 0 on.
    """
    total = np.zeros((unit.max() + 1, rows.shape[1]))
    np.add.at(total, unit, rows)
    return total


def _draws(count: int, seed: int) -> np.ndarray:
    """How often each of so many is drawn, a row each resample."""
    return np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), RESAMPLES)
