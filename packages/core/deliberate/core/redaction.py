"""Secrets, taken out of what is kept, shown or published.

what was typed, plain values --> the same with `***` where a secret was
"""

import re
import shlex
from collections.abc import Sequence
from typing import Any

HIDDEN = "***"

_KNOWN = (
    # Tokens by the beginnings that their makers gave them so that they can be found.
    r"\bhf_[A-Za-z0-9]{16,}",
    r"\bapi_org_[A-Za-z0-9]{16,}",
    r"\bsk-[A-Za-z0-9_-]{16,}",
    r"\bgh[pousr]_[A-Za-z0-9]{20,}",
    r"\bgithub_pat_[A-Za-z0-9_]{20,}",
    r"\bglpat-[A-Za-z0-9_-]{16,}",
    r"\bAKIA[A-Z0-9]{16}\b",
    r"\bxox[abprs]-[A-Za-z0-9-]{10,}",
    r"(?<![\w-])eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]*",
)
# The time that these take grows with the length of a text and no faster.
_TOKEN = re.compile("|".join(_KNOWN))
_IN_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31}://)[^/\s@'\"]+@")
_AFTER_BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9+/=._~-]{8,}")
_ASSIGNED = re.compile(r"(?<![\w.-])([\w.-]+)=")
_VALUE = re.compile(r"\"[^\"]*\"|'[^']*'|[^\s&;'\"]+")
_OPTION = re.compile(r"--?[\w.-]+")
# `tokens` is a count here, and `--every-token` a place.
_NAMES = (
    r"(?<!every-)token|(?:^|[-_.])(?:secret|password|passwd|(?:api|access)[-_]?key|credentials?)"
)
_SECRET = re.compile(rf"(?i)(?:{_NAMES})$")


def without_secrets(text: str) -> str:
    """A text without tokens of known makers, passwords in addresses and values of secret names."""
    text = _TOKEN.sub(HIDDEN, text)
    text = _IN_ADDRESS.sub(rf"\1{HIDDEN}@", text)
    text = _AFTER_BEARER.sub(rf"\1\2{HIDDEN}", text)
    return _without_values(text)


def _without_values(text: str) -> str:
    """A text without what is assigned to secret names."""
    kept, end = [], 0
    for assigned in _ASSIGNED.finditer(text):
        if assigned.start() < end or not _SECRET.search(assigned[1]):
            continue
        if value := _VALUE.match(text, assigned.end()):
            kept += [text[end : assigned.end()], HIDDEN]
            end = value.end()
    return "".join([*kept, text[end:]])


def command_line(words: Sequence[str]) -> str:
    """What was typed, as a shell would take it, without secrets.

    Args:
        words: The command and its arguments; the one after an option of a secret name is hidden.
    """
    shown, after = [], False
    for word in words:
        shown.append(HIDDEN if after else without_secrets(word))
        after = not after and bool(_OPTION.fullmatch(word) and _SECRET.search(word))
    return shlex.join(shown)


def values_without_secrets(value: Any) -> Any:
    """Plain values, each text in them without secrets, all else as it is.

    Args:
        value: As JSON and YAML hold them; left as it was.
    """
    if isinstance(value, dict):
        return {key: values_without_secrets(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [values_without_secrets(inner) for inner in value]
    return without_secrets(value) if isinstance(value, str) else value
