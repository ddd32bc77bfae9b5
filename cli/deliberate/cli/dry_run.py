"""What `deliberate train --dry-run` shows: what a run would take."""

import math
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from deliberate.cli.terminal import emit, note

if TYPE_CHECKING:
    import torch

    from deliberate.train import Recipe

_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}


def bytes_of(text: str) -> int:
    """A size such as `80GB`, in bytes.

    Raises:
        typer.BadParameter: it is no size.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)b?", text.strip().lower())
    size = float(match[1]) * _UNITS[match[2]] if match else math.inf
    if math.isinf(size):
        raise typer.BadParameter(f"must be a size such as 80GB, got {text!r:.100}")
    return int(size)


def show_plan(
    recipe: "Recipe",
    *,
    gpus: int,
    rate: float | None,
    memory: str | None,
    device: "torch.device",
    as_json: bool,
) -> None:
    """Print what a run would take, and refuse what cannot fit.

    Args:
        recipe: What would be trained.
        gpus: Devices that share each batch.
        rate: FLOPs a second that each of them reaches; measured on `device` if not given.
        memory: Of each, such as `80GB`; the device's own if not given.
        device: Where to measure.
        as_json: Print one JSON object.

    Raises:
        typer.BadParameter: `memory` is no size, or `rate` is no rate.
        DeliberateError: the run cannot fit, or its base is not known here.
    """
    from deliberate.train.plan import check_memory, plan
    from deliberate.train.precision import faster_here, memory_of, rate_of

    if rate is not None and not 0 < rate < math.inf:
        raise typer.BadParameter(f"--rate must be a number above 0, such as 3e14, got {rate}")
    limit = memory_of(device) if memory is None else bytes_of(memory)
    recipe = faster_here(recipe, device)
    found = plan(recipe, devices=gpus)
    reached = rate_of(device, recipe.base.dtype) if rate is None else rate
    hours = found.hours(reached)
    if as_json:
        emit({**asdict(found), "rate": reached, "measured": rate is None, "hours": hours})
    else:
        _print(asdict(found), hours)
        source = "measured on a matrix product here" if rate is None else "as given"
        note(f"{hours:,.2f} hours at {reached:.3g} FLOP/s on each of {gpus}, {source}")
    check_memory(found, limit)


BYTES_A_TOKEN = 4
"""Of English, by a vocabulary of the usual size; code has fewer, other scripts more."""


def _gigabytes(found: dict[str, Any]) -> float:
    return found["tokens"] * found["steps"] * BYTES_A_TOKEN / 1e9


def _print(found: dict[str, Any], hours: float) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for heading in ("", "part"):
        table.add_column(heading)
    table.add_column("amount", justify="right")
    flops, memory = sum(found["flops"].values()), sum(found["memory"].values())
    for part, count in found["parameters"].items():
        table.add_row("parameters", part, f"{count:,}")
    for part, count in [*found["flops"].items(), ("in all", flops)]:
        table.add_row("FLOPs a step", part, f"{count:.3g}")
    for part, count in [*found["memory"].items(), ("in all", memory)]:
        table.add_row("GB on each device", part, f"{count / 1e9:,.2f}")
    table.add_row("text tokens", "a step", f"{found['tokens']:,}")
    table.add_row("text tokens", "in all", f"{found['tokens'] * found['steps']:,}")
    table.add_row("GB of text", "in all, about", f"{_gigabytes(found):,.2f}")
    table.add_row("targets", "a step", f"{found['targets']:,}")
    table.add_row("hours", f"{found['steps']:,} steps", f"{hours:,.2f}")
    Console().print(table)
