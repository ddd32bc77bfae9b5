"""Paths of someone's own machine, which nobody else needs to see."""

import re
from typing import Any

_LOCAL = re.compile(r"[/\\~.]|[A-Za-z]:[/\\]|file:")


def without_folders(value: Any) -> Any:
    """Plain values with each local path in them cut to its last part, all else as it is.

    Args:
        value: As JSON and YAML hold them; left as it was. A text may be several paths with a comma
            and a space between them, as the sources of a mixture are told.
    """
    if isinstance(value, dict):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_folders(inner) for inner in value]
    return ", ".join(map(_last_part, value.split(", "))) if isinstance(value, str) else value


def _last_part(text: str) -> str:
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1] if _LOCAL.match(text) else text
