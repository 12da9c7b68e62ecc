"""Local ports: whoever connects is served by a task that ends with the block that listens.

At most `MAX_CONNECTIONS` of a port are served at once; more wait, unread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar


class Connected(Protocol):
    """A connection that is to be served."""

    def abort(self) -> None:
        """Close it at once."""


T = TypeVar("T", bound=Connected)
MAX_CONNECTIONS = 200  # below the hub's limit of streams per tunnel
BACKLOG = 128


@asynccontextmanager
async def accepting(
    bind: str,
    port: int,
    protocol: Callable[[Callable[[T], None]], asyncio.BaseProtocol],
    serve: Callable[[T], Awaitable[None]],
) -> AsyncIterator[list[tuple[str, int]]]:
    """Accept connections while the block runs; yields the addresses that are listened on.

    Args:
        bind: the address to listen on.
        port: 0 lets the system pick one.
        protocol: makes the protocol of a new connection; what it is given is to be called once
            with whatever is to be served.
        serve: serves it, in a task of its own, and closes it; aborted when that is cancelled.

    Raises:
        OSError: the address can't be had.
    """
    slots = asyncio.Semaphore(MAX_CONNECTIONS)
    serving = set[asyncio.Task[None]]()
    failure: BaseException | None = None

    async def serve_one(connected: T) -> None:
        async with slots:
            await serve(connected)

    def ended(task: asyncio.Task[None], connected: T) -> None:
        serving.discard(task)
        if task.cancelled() or task.exception() is not None:
            connected.abort()

    async with asyncio.TaskGroup() as tasks:

        def accepted(connected: T) -> None:
            if not server.is_serving():
                connected.abort()
                return
            task = tasks.create_task(serve_one(connected))
            serving.add(task)
            task.add_done_callback(lambda done: ended(done, connected))

        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                lambda: protocol(accepted), bind, port, backlog=BACKLOG
            )
            try:
                yield [sock.getsockname()[:2] for sock in server.sockets]
            finally:
                server.close()
                for task in serving:
                    task.cancel()
        except BaseException as error:  # raised again below, outside the group
            failure = error
    if failure is not None:
        raise failure
