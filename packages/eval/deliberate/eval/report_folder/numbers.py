"""Numbers as a report writes them: short, changes with their sign, a dash where there is none.

value, low, high --> text, interval, whether it is better or worse
"""

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

from deliberate.core.verdict import LARGEST_PERCENT
from deliberate.eval.report_folder.blocks import Cell, Number

NONE = "\N{EN DASH}"
"""Stands for a number that there is not."""

MINUS = "\N{MINUS SIGN}"
SPACE = "\N{NO-BREAK SPACE}"
TIMES = "\N{MULTIPLICATION SIGN}"

Interval = Mapping[str, Any]
"""`value`, `low` and `high`, or `median`, `low` and `high`."""


def known(value: object) -> TypeGuard[float]:
    """Whether a value is a number and not a lack of one."""
    return isinstance(value, Number) and math.isfinite(value)


def plain(value: object, *, places: int = 2) -> str:
    """A number of so many places; large ones with fewer."""
    if not isinstance(value, Number) or not math.isfinite(value):
        return NONE
    if abs(value) >= 1e6:
        return f"{value:.2e}".replace("e+0", "e").replace("e+", "e").replace("-", MINUS)
    fewer = 0 if abs(value) >= 1000 else min(places, 1) if abs(value) >= 100 else places
    return f"{value:,.{fewer}f}".replace("-", MINUS)


def count(value: object) -> str:
    """A whole number, with marks between thousands."""
    return f"{value:,}" if isinstance(value, int) else plain(value, places=0)


def signed(value: object, *, places: int = 2) -> str:
    """A change, with its sign."""
    text = plain(value, places=places)
    return text if text == NONE or text.startswith(MINUS) else f"+{text}"


def change(found: Interval | None, *, unit: str = "%", lower_is_better: bool = True) -> Cell:
    """A change with its interval, and whether that excludes zero.

    Args:
        found: In percent or in points.
        unit: Written behind the value.
        lower_is_better: What the change is good for.
    """
    if not found or not known(found.get("value")):
        return Cell(text=NONE)
    value, low, high = (found.get(key) for key in ("value", "low", "high"))
    if value == low == high == 0:
        return Cell(text="nothing differs")
    tone = ""
    if known(low) and known(high):
        tone = "" if low <= 0 <= high else "better" if (high < 0) == lower_is_better else "worse"
    largest = max(abs(each) for each in (value, low, high) if isinstance(each, Number))
    if unit == "%" and largest > LARGEST_PERCENT:
        return Cell(
            text=f"{TIMES} {_factor(value)}", interval=_between(low, high, _factor), tone=tone
        )
    return Cell(
        text=f"{signed(value)}{SPACE}{unit}", interval=_between(low, high, signed), tone=tone
    )


def alike(found: Interval | None) -> bool:
    """Whether two ways of answering solve the very same problems."""
    if not found or not known(found.get("value")):
        return False
    if found.get("gained") is not None and found.get("lost") is not None:
        return found["gained"] == found["lost"] == 0
    return found["value"] == found.get("low") == found.get("high") == 0


def points(found: Interval | None) -> Cell:
    """A difference of problems solved; where nothing differs, words and no interval."""
    if alike(found):
        return Cell(text="nothing differs")
    return change(found, unit="points", lower_is_better=False)


def share(found: Interval | None) -> Cell:
    """A share in percent with its interval."""
    if not found or not known(found.get("value")):
        return Cell(text=NONE)
    return Cell(
        text=f"{plain(found['value'], places=1)} %",
        interval=_between(found.get("low"), found.get("high"), lambda v: plain(v, places=1)),
    )


def seconds(found: Interval | Number | None) -> Cell:
    """A time, or a median one with its interval."""
    if found is None or isinstance(found, Number):
        return Cell(text=_seconds(found))
    return Cell(
        text=_seconds(found.get("median")),
        interval=_between(found.get("low"), found.get("high"), _seconds),
    )


def rate(found: Interval | None) -> Cell:
    """A median number a second, with its interval."""
    if not found:
        return Cell(text=NONE)
    return Cell(
        text=plain(found.get("median"), places=1),
        interval=_between(found.get("low"), found.get("high"), lambda v: plain(v, places=1)),
    )


def size(value: object) -> str:
    """Bytes."""
    return _scaled(value, ("B", "kB", "MB", "GB", "TB"))


def flops(value: object) -> str:
    """Floating point operations."""
    return _scaled(value, ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"))


def p_value(value: object) -> str:
    """A probability under the hypothesis that there is no difference."""
    if not isinstance(value, Number) or not math.isfinite(value):
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def p_said(value: object) -> str:
    """The same within a sentence."""
    text = p_value(value)
    return f"p{SPACE}{text}" if text.startswith("<") else f"p{SPACE}={SPACE}{text}"


def _between(low: object, high: object, write: Any) -> str:
    return f"{write(low)} … {write(high)}" if known(low) and known(high) else ""


def _factor(percent: Any) -> str:
    return plain(1 + percent / 100)


def _seconds(value: object) -> str:
    if not isinstance(value, Number) or not math.isfinite(value):
        return NONE
    if abs(value) >= 120:
        return f"{plain(value / 60, places=1)} min"
    if abs(value) >= 1:
        return f"{plain(value)} s"
    return f"{plain(1000 * value, places=1 if abs(value) >= 0.01 else 2)} ms"


def _scaled(value: object, units: tuple[str, ...]) -> str:
    if not isinstance(value, Number) or not math.isfinite(value):
        return NONE
    step = 0
    while abs(value) >= 1000 and step < len(units) - 1:
        value, step = value / 1000, step + 1
    return f"{plain(value, places=1 if step else 0)} {units[step]}"
