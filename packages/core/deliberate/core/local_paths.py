"""Paths of someone's own machine, which nobody else needs to see."""

import re
from typing import Any

_LOCAL = re.compile(r"[/\\~.]|[A-Za-z]:[/\\]|file:")


def without_folders(value: Any) -> Any:
    """Plain values with each local path in them cut to its last part, all else as it is.

    Args:
        value: As JSON and YAML hold them; left as it was.
    """
    if isinstance(value, dict):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_folders(inner) for inner in value]
    if isinstance(value, str) and _LOCAL.match(value):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return value
