"""What is kept here, at once, where the Hub cannot be reached.

`datasets` asks the Hub's client, which tries again for half a minute and tells of each time, before
either looks into its cache or says that there is nothing.
"""

from collections.abc import Generator
from contextlib import contextmanager

from datasets import config
from huggingface_hub import constants, get_session
from huggingface_hub.errors import HTTPError

from deliberate.core.patience import bounded


@contextmanager
def hub_or_cache() -> Generator[None]:
    """While the block runs, the Hub is asked, within our limits; nobody if it cannot be reached."""
    with bounded():
        if _is_reachable():
            yield
            return
    before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before


def _is_reachable() -> bool:
    """Whether the Hub may be asked, and answers anything at all."""
    if config.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, follow_redirects=False)
    except (HTTPError, OSError):
        return False
    return True
