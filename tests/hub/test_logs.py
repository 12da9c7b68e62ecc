"""The log: one line a record, whatever a peer says; strangers leave no tracebacks."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from hub.logs import configure


@pytest.fixture(params=[False, True], ids=["text", "json"])
def log(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    root, asyncio_logger = logging.getLogger(), logging.getLogger("asyncio")
    before, filters = root.handlers[:], asyncio_logger.filters[:]
    level = root.level
    written = io.StringIO()
    root.handlers = []
    configure(request.param, to=written)
    yield written
    root.handlers, asyncio_logger.filters = before, filters
    root.setLevel(level)


def test_what_a_peer_says_stays_on_its_line(log: io.StringIO) -> None:
    logging.getLogger("hub").warning("%s goes away", "evil\r\n2026 INFO\x1b[2J\u202e caf\u00e9")
    (line,) = log.getvalue().splitlines()
    assert "\x1b" not in line
    assert "caf\u00e9" in line


def test_a_handshake_that_breaks_off_is_not_logged(log: io.StringIO) -> None:
    broken_off = (ConnectionResetError, ConnectionResetError, ConnectionResetError.__traceback__)
    asyncio_logger = logging.getLogger("asyncio")
    asyncio_logger.error("SSL handshake failed\nprotocol: x", exc_info=broken_off)  # type: ignore[arg-type]
    assert log.getvalue() == ""
    asyncio_logger.error("something else")
    assert "something else" in log.getvalue()
