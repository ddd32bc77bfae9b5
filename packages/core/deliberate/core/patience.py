"""Asking the Hub again where an answer failed to come, and waiting for none for ever.

call --patiently--> what it gives, or what it raised at the last try

The Hub's own client asks again in some places and not in others, has no time limit in most, waits
as long as it is asked to, and tells of each failure with its whole address, which may hold a
signature.
"""

import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

from huggingface_hub import get_session
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import hf_raise_for_status, parse_ratelimit_headers
from huggingface_hub.utils import logging as hub_logging

WAITS = (1.0, 4.0)
"""Seconds before each further try."""

LONGEST_WAIT = 300.0
"""Seconds that the Hub may ask for: it counts requests in windows of five minutes."""

CONNECTING = 10.0
"""Seconds in which a connection must come about."""

SILENCE = 120.0
"""Seconds without a byte after which a request is given up; a large commit is made in a minute."""

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that may be others at the next try."""

_WORTH_A_WORD = 5.0  # seconds
_PARTS = ("connect", "read", "write", "pool")

logger = logging.getLogger(__name__)

T = TypeVar("T")


def patiently(call: Callable[[], T], *, once_sent: bool = False) -> T:
    """What a call to the Hub gives, asked again where it fails in a way that may pass.

    Args:
        call: May be made again.
        once_sent: Whether it may not be made again once it may have been heard: only a refusal of
            the Hub then leads to another try.

    Raises:
        HTTPError: the Hub refused, or did not answer.
        OSError: the same, or something here failed.
        RuntimeError: the same, of an upload.
    """
    for wait in WAITS:
        try:
            with bounded():
                return call()
        except (HTTPError, OSError, RuntimeError) as error:
            pause = _pause(root_of(error), wait, once_sent=once_sent)
            if pause is None:
                raise
        if pause >= _WORTH_A_WORD:
            logger.warning("the Hub is busy: trying again in %.0f seconds", pause)
        time.sleep(pause)
    with bounded():
        return call()


def root_of(error: BaseException) -> BaseException:
    """What an error began with, or the failed request on the way: the client wraps both."""
    while error.__cause__ is not None and not isinstance(error, HTTPError):
        error = error.__cause__
    return error


def status_of(error: BaseException) -> int | None:
    """What the Hub answered, if it answered."""
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def asked_to_wait(error: BaseException) -> int | None:
    """Seconds that the Hub's answer asks to wait."""
    return _asked(error.response) if isinstance(error, HfHubHTTPError) else None


def _asked(response: Any) -> int | None:
    """The same: until the window of requests ends where they are used up, or as `Retry-After`."""
    window = parse_ratelimit_headers(response.headers) if response.status_code == 429 else None
    if window is not None and window.remaining == 0:
        return window.reset_in_seconds
    said = response.headers.get("Retry-After", "").strip()
    return int(said) if said.isdecimal() else None


def _pause(error: BaseException, wait: float, *, once_sent: bool) -> float | None:
    """Seconds to wait before the next try; none if there is to be none."""
    status = status_of(error)
    if status is None:
        return wait if isinstance(error, HTTPError) and not once_sent else None
    if status not in PASSING or (once_sent and status not in {429, 503}):
        return None
    asked = asked_to_wait(error)
    if asked is None:
        return wait
    return float(asked) if asked <= LONGEST_WAIT else None


@contextmanager
def bounded() -> Generator[None]:
    """While the block runs, each request of the Hub's client ends, and it speaks of none."""
    hooks, said = get_session().event_hooks, hub_logging.get_verbosity()
    hooks["request"].append(_limit)
    hooks["response"].append(_refuse_to_wait)
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        hub_logging.set_verbosity(said)
        hooks["request"].remove(_limit)
        hooks["response"].remove(_refuse_to_wait)


def _limit(request: Any) -> None:
    """Give a request that has no time limit ours: most of the client's say that they want none."""
    asked = request.extensions.get("timeout") or {}
    ours = dict.fromkeys(_PARTS, SILENCE) | {"connect": min(CONNECTING, SILENCE)}
    request.extensions["timeout"] = {
        part: seconds if asked.get(part) is None else asked[part] for part, seconds in ours.items()
    }


def _refuse_to_wait(response: Any) -> None:
    """Raise what the client would hold back, to wait for longer than we do."""
    if response.status_code in PASSING and (_asked(response) or 0) > LONGEST_WAIT:
        hf_raise_for_status(response)
