"""Logs as lines of JSON; none holds a prompt, an answer or a key."""

import json
import logging
import re
import secrets
from datetime import UTC, datetime

LOGGER = logging.getLogger("deliberate.serve")
"""Where all parts of the server log."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class JsonLines(logging.Formatter):
    """One JSON object a record: time, level, what happened, and the record's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log(event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log an event and its fields."""
    LOGGER.log(level, event, extra={"fields": fields})


def request_id(given: str | None) -> str:
    """The id that the client gave, if it is a harmless one, or a new one."""
    if given and _ID.fullmatch(given):
        return given
    return secrets.token_hex(8)


def to_stderr(level: int = logging.INFO) -> None:
    """Have the server's and uvicorn's records written to stderr as lines of JSON."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    for name in (LOGGER.name, "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level if name == LOGGER.name else logging.WARNING)
