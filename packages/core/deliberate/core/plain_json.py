"""JSON that somebody else may have written: what it says is what every reader finds in it.

    bytes --parse--> plain values, or one sentence that says what is wrong

Python's reader takes more than JSON: `NaN`, and a key given twice, of which it keeps the last.
Another reader keeps the first, or refuses. So both are refused here.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

from deliberate.core import plain_file

MOST_BYTES = 16 << 20
"""Of a file of settings; those that ship and those that are written have a few thousand."""

MOST_DEPTH = 64
"""Of lists and objects in one another; ours have 6. Python itself gives up near 1,000."""


def read(path: Path, *, most: int = MOST_BYTES, finite: bool = True) -> Any:
    """The content of a JSON file.

    Args:
        path: The file.
        most: Bytes that it may have.
        finite: Whether `NaN` and infinities are refused, which our own results hold where nothing
            could be measured.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger.
        ValueError: it is not JSON, or not plain.
    """
    return parse(plain_file.read(path, most=most), finite=finite)


def parse(content: bytes | str, *, finite: bool = True) -> Any:
    """The value that JSON holds.

    Args:
        content: In UTF-8, or decoded.
        finite: As for `read`.

    Raises:
        ValueError: it is not UTF-8 or not JSON, holds a key twice, a number that is not finite or
            half a character, or is nested too deep.
    """
    text = content if isinstance(content, str) else content.decode("utf-8")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_once,
            parse_constant=_not_finite if finite else None,
            parse_float=_finite if finite else None,
        )
    except RecursionError as error:
        raise ValueError(f"it is nested more than {MOST_DEPTH} deep") from error
    _check_depth(value)
    if "\\u" in text:
        _check_characters(json.dumps(value, ensure_ascii=False))
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"it holds {twice[:80]!r} twice")
    return found


def _not_finite(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not a number of JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in {float("inf"), float("-inf")}:
        raise ValueError(f"it holds {digits[:40]}, which is too large for a number")
    return number


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MOST_DEPTH):
        inner = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        if not inner:
            return
        level = inner
    raise ValueError(f"it is nested more than {MOST_DEPTH} deep")


def _check_characters(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("it holds half a character, which no text has") from error
