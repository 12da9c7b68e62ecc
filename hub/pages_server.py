"""uvicorn without its own sockets and signals: it serves what the listener hands over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import uvicorn
from litestar import Litestar

GRACEFUL_S = 4
"""How long requests may go on after the stop began."""


class _Server(uvicorn.Server):
    """Leaves the signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serve_pages(app: Litestar) -> AsyncIterator[Callable[[], asyncio.Protocol]]:
    """Run the application; yields the protocol factory for connections over TLS."""
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=256 * 1024,
        ws_per_message_deflate=False,
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=GRACEFUL_S,
        h11_max_incomplete_event_size=64 * 1024,
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
