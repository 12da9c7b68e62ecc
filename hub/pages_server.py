"""uvicorn without its own sockets and signals: it serves what the listener hands over.

The rule it guards: strangers hold no connection and no memory for long. A request's head is whole
within 20 s and 64 KiB, its body never pauses for a minute; uvicorn itself limits none of these.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from hub.published.asgi import App

HEAD_S = 20.0
HEAD_BYTES = 64 * 1024
BODY_PAUSE_S = 60.0
GRACEFUL_S = 4
"""How long requests may go on after the stop began."""


class _Connection(HttpToolsProtocol):
    """Cuts a connection whose request comes too slowly, or whose head has no end.

    It is cut, not closed: a peer that stalls would stall the end of TLS too.
    """

    _late: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect(HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.transport.get_protocol() is not self:  # a WebSocket now
            self._expect(None)
        elif not _is_over(self.cycle):
            self._head_bytes = 0
            self._expect(BODY_PAUSE_S if self.cycle.more_body else None)
        elif self.cycle is before:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self.transport.abort()
            elif self._late is None:
                self._expect(HEAD_S)

    def _expect(self, within_s: float | None) -> None:
        """Close the connection when nothing changes within a time; None: it may take any."""
        if self._late is not None:
            self._late.cancel()
        self._late = None if within_s is None else self.loop.call_later(within_s, self._is_late)

    def _is_late(self) -> None:
        self._late = None
        if self.flow.read_paused:  # we are the slow ones
            self._expect(BODY_PAUSE_S)
        else:
            self.transport.abort()


def _is_over(cycle: RequestResponseCycle | None) -> bool:
    """Whether no request is being answered: what comes is the next one's head."""
    return cycle is None or cycle.response_complete


class _Server(uvicorn.Server):
    """Leaves the signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serve_pages(app: App) -> AsyncIterator[Callable[[], asyncio.Protocol]]:
    """Run the application; yields the protocol factory for connections over TLS."""
    config = uvicorn.Config(
        app,
        http=_Connection,
        ws="websockets-sansio",
        ws_max_size=256 * 1024,
        ws_per_message_deflate=False,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # a program on the same host may not choose the address of the audit
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACEFUL_S,
    )
    config.load()
    server = _Server(config)
    server.lifespan = config.lifespan_class(config)

    def protocol() -> asyncio.Protocol:
        made: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]
            config=config, server_state=server.server_state, app_state=server.lifespan.state
        )
        return made

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve(sockets=[]))
        try:
            yield protocol
        finally:
            server.should_exit = True
