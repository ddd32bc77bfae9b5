"""Freed memory goes back to the system.

    freed, kept by the allocator --every ten seconds--> the system

glibc keeps what is freed between pieces that live on, and a server whose caches come and go holds
ever more of it: 54 of 662 MB after 2,500 answers (`docs/log.md`, 2026-11-27).
"""

import ctypes
from collections.abc import Callable
from typing import cast


def give_back() -> None:
    """Give the system the pages that nothing lives on, where the allocator is glibc's."""
    trim = cast(Callable[[int], int] | None, getattr(ctypes.CDLL(None), "malloc_trim", None))
    if trim is not None:
        trim(0)
