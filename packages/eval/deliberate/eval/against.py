"""What latents are compared with, as `deliberate eval --against` names it.

"shuffled,zero,soft:RUN" --parsed--> controls (shuffled, zero), baselines {soft: RUN}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

from deliberate.eval.controls import CONTROLS

BASELINES = ("soft", "pause")
"""Trained latents that do not depend on the text, each followed by its run."""

NOTHING = "none"
"""No latents at all: the base alone, which every table has anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """What latents are compared with, besides the base alone."""

    controls: tuple[str, ...] | None = None
    """Names of `CONTROLS`; none are those that are always there."""

    baselines: Mapping[str, str] = field(default_factory=dict)
    """A run's folder, `nano-soft` or a Hub id, by name of `BASELINES`."""


def parsed(named: str) -> Against:
    """Read what `--against` names.

    Args:
        named: Controls, `soft:RUN`, `pause:RUN` and `none`, with commas between them.

    Raises:
        ValueError: there is no such control, a baseline has no run, or comes twice.
    """
    controls: dict[str, None] = {}
    baselines: dict[str, str] = {}
    for each in (part.strip() for part in named.split(",")):
        name, colon, run = each.partition(":")
        if name in BASELINES:
            if not run:
                raise ValueError(f"against {each!r} names no run: say {name}:RUN")
            if name in baselines:
                raise ValueError(
                    f"against has {name!r} twice, {baselines[name]!r} and {run!r}: measure the "
                    "second in another run of eval"
                )
            baselines[name] = run
        elif colon or name not in (*CONTROLS, NOTHING):
            raise ValueError(_unknown(each, name))
        elif name != NOTHING:
            controls[name] = None
    return Against(controls=tuple(controls), baselines=baselines)


def _unknown(each: str, name: str) -> str:
    known = [*CONTROLS, *(f"{baseline}:RUN" for baseline in BASELINES), NOTHING]
    near = get_close_matches(name, [*CONTROLS, *BASELINES, NOTHING], n=1, cutoff=0.0)
    nearest = "".join(word for word in known if near and word.partition(":")[0] == near[0])
    return f"no control {each!r}, the nearest is {nearest!r}: known are {', '.join(known)}"
