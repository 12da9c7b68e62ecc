"""Logging of a program: text for people or JSON lines for machines, to stderr.

The rule it guards: a record is one line (and perhaps a traceback), whatever a peer put into a name
or a reason. Used by entry points only; modules take `logging.getLogger(__name__)` and nothing else.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

import msgspec


class LogLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the JSON log."""

    at: float
    """Seconds since the epoch."""
    level: str
    logger: str
    message: str
    error: str | None = None
    """The traceback, when there is one."""


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        error = self.formatException(record.exc_info) if record.exc_info else None
        line = LogLine(
            record.created, record.levelname.lower(), record.name, record.getMessage(), error
        )
        return msgspec.json.encode(line).decode()


class TextFormatter(logging.Formatter):
    """Formats a record for people, times in UTC."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line with everything that does not print escaped."""
        if not record.message.isprintable():
            record.message = "".join(map(_printable, record.message))
        return super().formatMessage(record)


def _printable(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]


def _is_no_stranger(record: logging.LogRecord) -> bool:
    """Leave out what uvloop says of every peer that leaves in the middle of its handshake.

    Its record carries the error's class for the error, which no formatter can show.
    """
    return not record.getMessage().startswith("SSL handshake failed")


def configure(json: bool = False, *, level: int = logging.INFO, to: TextIO | None = None) -> None:
    """Send the whole process's log to stderr, or to `to`, replacing what was set before."""
    handler = logging.StreamHandler(to or sys.stderr)
    handler.setFormatter(JsonFormatter() if json else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("alembic", "sqlalchemy", "httpx"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    if level > logging.DEBUG:
        logging.getLogger("asyncio").addFilter(_is_no_stranger)
