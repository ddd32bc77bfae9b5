"""A user's own questions for `deliberate eval --problems`, as far as names tell of them.

"test.jsonl,more/" --own_named--> files, folders, Hub ids --check_own--> what does not go with them
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deliberate.cli.eval_against import parsed
from deliberate.cli.eval_names import ALL, FAMILIES, families, listed
from deliberate.cli.places import may_be_source

COLUMNS = ("question", "answer", "template", "separator")
"""Options that say how questions and answers are read."""


def own_named(named: str | None) -> tuple[str, ...]:
    """What `--problems` names that is no family; a single word is one only if it is there.

    Args:
        named: As it was typed, if it was.

    Returns:
        Each place once, however often and in whatever spelling it is named.
    """
    each = [] if named is None else [one.strip() for one in named.split(",")]
    places: dict[Path, str] = {}
    for one in each:
        if one and _is_own(one):
            places.setdefault(Path(one).resolve(), one)
    return tuple(places.values())


def check_problems(named: str) -> None:
    """See that `--problems` names families, or places where questions may be.

    Raises:
        FileNotFoundError: nothing here has that name, and nothing on the Hub can.
        ValueError: a family is not known, or one stands beside a file.
    """
    own = own_named(named)
    if not own:
        families(named)
        return
    made = [one for one in listed("file of questions", named) if one not in own]
    if made:
        raise ValueError(
            f"--problems names {made[0]!r}, which would be a family of made problems, beside "
            f"{own[0]!r}, which would hold your own: ask one after the other, each with its own -o"
        )
    for one in own:
        if not may_be_source(one):
            raise FileNotFoundError(
                f"no questions at {one!r:.200}: give a JSONL or Parquet file, a folder of them or "
                f"a Hub id like 'owner/name', or families of made problems: {', '.join(FAMILIES)}"
            )


def check_own(said: Mapping[str, Any]) -> None:
    """See that options go with questions of one's own, where `--problems` names some.

    Args:
        said: The command's parameters.

    Raises:
        ValueError: one does not.
    """
    own = own_named(said["problems"])
    if not own:
        return
    for name in ("steps", "shots"):
        if said[name] is not None:
            raise ValueError(
                f"--{name} is for made problems, and {own[0]!r} holds your own: leave it out"
            )
    if said["suite"] is not None:
        raise ValueError(
            f"--suite {said['suite']} asks made problems, and {own[0]!r} holds your own: ask them "
            "in a command of their own"
        )
    chains = () if said["against"] is None else parsed(said["against"]).chains
    if chains:
        raise ValueError(
            f"against {chains[0]!r} chooses its cue on made problems that are not asked, and "
            f"{own[0]!r} has no such others: leave it out"
        )


def _is_own(name: str) -> bool:
    return name not in (*FAMILIES, ALL) and ("/" in name or "." in name or Path(name).exists())
