"""What a device can do: how fast it multiplies, in which numbers faster, how much it holds.

Some CPUs multiply bfloat16 at several times the rate of float32, some at half of it, and what a
CPU says of itself does not tell which: so it is measured, once, when a run begins, and the run
computes in the faster ones. A run that is resumed goes on in what it began in.
"""

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import torch

from deliberate.train.folder import begun_dtype
from deliberate.train.processes import Processes
from deliberate.train.recipe import Recipe

_DTYPES = ("float32", "bfloat16")
_SIDE = 512  # of the matrices: large enough for the rate, small enough for a millisecond
_TURNS = 5


def settle_dtype(recipe: Recipe, folder: Path, processes: Processes) -> Recipe:
    """The recipe with `base.dtype` settled, where it is `auto`.

    Args:
        recipe: What to train.
        folder: The run's folder; a run in it has settled the matter already.
        processes: Who trains; the first one's device decides.
    """
    if recipe.base.dtype != "auto":
        return recipe
    chosen = processes.by_first(
        lambda: _DTYPES.index(begun_dtype(folder) or faster_dtype(processes.device))
    )
    return _computing_in(recipe, _DTYPES[chosen])


def faster_here(recipe: Recipe, device: torch.device) -> Recipe:
    """The recipe as a run that began now on this device would settle it."""
    if recipe.base.dtype != "auto":
        return recipe
    return _computing_in(recipe, faster_dtype(device))


def _computing_in(recipe: Recipe, dtype: Any) -> Recipe:
    return dataclasses.replace(recipe, base=dataclasses.replace(recipe.base, dtype=dtype))


def rate_of(device: torch.device, dtype: str) -> float:
    """FLOPs a second that a matrix product reaches on a device."""
    turns = [_seconds(getattr(torch, dtype), device) for _ in range(_TURNS + 1)]
    return 2 * _SIDE**3 / min(turns[1:])


def memory_of(device: torch.device) -> int:
    """Bytes of memory that a device has."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def faster_dtype(device: torch.device) -> str:
    """`bfloat16`, unless float32 products are as fast on this device."""
    seconds: dict[str, list[float]] = {name: [] for name in _DTYPES}
    for _ in range(_TURNS + 1):
        for name, each in seconds.items():
            each.append(_seconds(getattr(torch, name), device))
    fastest = {name: min(each[1:]) for name, each in seconds.items()}  # the first one warms up
    return min(_DTYPES, key=lambda name: fastest[name])


def _seconds(dtype: torch.dtype, device: torch.device) -> float:
    """Time of one matrix product."""
    matrix = torch.ones(_SIDE, _SIDE, dtype=dtype, device=device)
    _wait_for(device)
    start = time.perf_counter()
    torch.mm(matrix, matrix)
    _wait_for(device)
    return time.perf_counter() - start


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
