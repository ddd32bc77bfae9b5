"""Failures as their reader sees them: one line that names the value, the rule and the way out."""

import errno
import sys
from collections.abc import Generator
from contextlib import contextmanager

import typer
from typer.exceptions import TyperException

from deliberate.cli.terminal import harmless

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the signal's number."""

_WAYS_OUT = {
    errno.ENOENT: "check the path",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "a folder is needed there",
    errno.ELOOP: "remove that link",
    errno.EACCES: "choose a place that you may use",
    errno.EPERM: "choose a place that you may use",
    errno.EROFS: "choose a place that can be written",
    errno.ENOSPC: "make room or write elsewhere; nothing half-written was left",
}


def repairable() -> tuple[type[Exception], ...]:
    """The exceptions to be shown as one line; anything else keeps its traceback.

    A `DeliberateError` can only be on its way once its module was imported, so nothing is
    imported here: asking for help does not load torch.
    """
    errors = sys.modules.get("deliberate.core.errors")
    return (OSError,) if errors is None else (OSError, errors.DeliberateError)


@contextmanager
def configuring() -> Generator[None]:
    """Turn a `ValueError` raised while a configuration is built into a wrong use, exit code 2.

    Raises:
        typer.BadParameter: the block raised a `ValueError`.
    """
    try:
        yield
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def sentence(error: Exception) -> str:
    """An exception's message in one line."""
    if isinstance(error, TyperException):
        message = _with_value(error.format_message().rstrip("."), error.__cause__)
    elif isinstance(error, OSError) and error.strerror:
        where = f"{str(error.filename)!r}: " if error.filename else ""
        way_out = _WAYS_OUT.get(error.errno or 0)
        message = where + error.strerror.lower() + (f": {way_out}" if way_out else "")
    else:
        message = str(error)
    return harmless(message)


def _with_value(message: str, cause: BaseException | None) -> str:
    """A wrong use in typer's words, which leave out what was typed where pydantic refused it."""
    pydantic = sys.modules.get("pydantic")
    if pydantic is None or not isinstance(cause, pydantic.ValidationError):
        return message
    first = cause.errors()[0]
    if first["type"] == "value_error":  # a sentence of typer's own, which has it
        return message.replace("Value error, ", "")
    return f"{message}, got {first['input']!r}"
