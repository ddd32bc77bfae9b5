"""Suites of `deliberate eval`: several tasks in one run, sized for an occasion.

--suite quick --> perplexity, problems and cost, with its own values where options say nothing
"""

from enum import StrEnum
from typing import Any

import typer

from deliberate.cli.eval_tasks import given


class Suite(StrEnum):
    """What to measure together."""

    QUICK = "quick"
    """Everything that needs no download, on `nano` in minutes."""


VALUES: dict[Suite, dict[str, Any]] = {
    Suite.QUICK: {"texts": 64, "anchors": 16, "delay": "0,1,2,8", "count": 20},
}
"""What a suite has in place of an option's default."""

AGAINST = {
    Suite.QUICK: "shuffled,shuffled_but_last,random,zero,reversed,every:8,cot,cot:latency",
}
"""What a suite compares latents with, where `--against` says nothing."""


def settled(context: typer.Context, suite: Suite | None) -> dict[str, Any]:
    """The command's parameters, those of the suite where nothing was given.

    Args:
        context: Knows what was given.
        suite: Which suite, if one.
    """
    own = {} if suite is None else VALUES[suite]
    values = {name: value for name, value in own.items() if not given(context, name)}
    if context.params["every_token"]:  # its anchors are all there are
        values.pop("anchors", None)
    return {**context.params, **values}
