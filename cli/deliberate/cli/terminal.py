"""What a command says: data on stdout, notes and progress on stderr."""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, Protocol

import typer

PATIENCE = 2.0
"""Seconds of waiting after which progress is shown."""


def note(text: str) -> None:
    """Tell the user something that is not the command's result."""
    typer.echo(text, err=True)


def emit(result: dict[str, Any]) -> None:
    """Write a result as one JSON object."""
    typer.echo(json.dumps(result, ensure_ascii=False, allow_nan=False))


def harmless(text: str) -> str:
    """A text in one line that only shows itself: what would steer the terminal is spelled out."""
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(map(_spelled, line))


def spelled_out(text: str) -> str:
    """A text in its lines, each of which only shows itself."""
    return "".join(one if one == "\n" else _spelled(one) for one in text)


def _spelled(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]


class Advance(Protocol):
    """Moves a progress bar on."""

    def __call__(self, count: int, *, total: int | None = None) -> None:
        """Count some more as done; `total` where it was found out late."""


@contextmanager
def progress(what: str, total: int | None) -> Generator[Advance]:
    """Show a progress bar while the block runs, on a terminal and once it has taken a while.

    Args:
        what: What is being done.
        total: How many there are to do; none if that is not known yet.

    Yields:
        To be called with how many more were done.
    """
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn())
    times = (TimeElapsedColumn(), TimeRemainingColumn())
    bar = Progress(*columns, *times, console=console, transient=True, redirect_stdout=False)
    task = bar.add_task(what, total=total)
    # A timer, so that one long step shows its bar as well as many short ones do.
    timer = threading.Timer(PATIENCE, bar.start)
    if console.is_terminal:
        timer.start()

    def advance(count: int, *, total: int | None = None) -> None:
        bar.update(task, advance=count, total=total)

    try:
        yield advance
    finally:
        if console.is_terminal:
            timer.cancel()
            timer.join()
        if bar.live.is_started:
            bar.stop()
