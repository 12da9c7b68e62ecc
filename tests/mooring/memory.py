"""A `Link` whose tunnel is up already, in memory; the test is the hub at its other end."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import cast

from mooring.sdk.forwarding import Link
from protocol.aio import Handler, Stream, Tunnel, memory_pair
from protocol.messages import ClientArrival, ClientOpen, HubOpenAtClient, Open


@dataclass
class MemoryLink:
    """What of a `Link` is used by what stands on it."""

    tunnel: Tunnel | None = None
    serving: dict[str, Handler] = field(default_factory=dict)

    async def open(self, message: ClientOpen) -> Stream:
        assert self.tunnel is not None
        return await self.tunnel.open(message)

    @contextmanager
    def arrivals(self, listener: str, serve: Handler) -> Iterator[None]:
        self.serving[listener] = serve
        try:
            yield
        finally:
            del self.serving[listener]

    async def arrived(self, opened: Open, stream: Stream) -> None:
        assert isinstance(opened, ClientArrival)
        await self.serving[opened.listener](opened, stream)


@asynccontextmanager
async def memory_link(handler: Handler) -> AsyncIterator[tuple[Link, Tunnel]]:
    """A link whose streams `handler` serves, and the hub's end of its tunnel."""
    link = MemoryLink()
    async with memory_pair(
        link.arrived,
        handler,
        dialled_accepts=HubOpenAtClient,
        accepted_accepts=ClientOpen,
    ) as (link.tunnel, hub):
        yield cast(Link, link), hub


async def echo(_message: Open, stream: Stream) -> None:
    while data := await stream.read():
        await stream.write(data)
