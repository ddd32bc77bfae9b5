"""Where things are kept that can be made anew: `$XDG_CACHE_HOME/deliberate`, else `~/.cache`."""

import os
from pathlib import Path


def place(name: str) -> Path:
    """The path of a file or a folder there, whether it is there or not.

    Raises:
        RuntimeError: the user has no home, and `XDG_CACHE_HOME` is not set.
    """
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "deliberate" / name
