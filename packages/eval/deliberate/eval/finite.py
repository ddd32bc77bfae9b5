"""Plain values as JSON may hold them: what is not a number, or has no end, is none.

floats, nan, inf --> floats, none
"""

import math
from collections.abc import Mapping
from typing import Any


def finite(value: Any) -> Any:
    """The same values with none in place of every number that is not finite.

    Args:
        value: Plain ones, in mappings, lists and tuples.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list | tuple) else value
