"""Local ports whose connections come out on a node: one `ClientForward` stream each.

`Link` keeps a tunnel to the hub up, with full jitter between attempts (up to 30 s); `Forwarder`
serves the connections of a port here; `protocol.aio.tcp` carries their bytes. Beside it,
`mooring.sdk.reverse` opens ports on the node, `mooring.sdk.socks` is a proxy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from typing import NoReturn

from mooring.sdk.accepting import accepting
from mooring.sdk.async_client import AsyncClient, refused
from mooring.sdk.errors import HubUnreachable, Unavailable
from mooring.sdk.waits import Waits
from protocol.aio import Handler, ProtocolError, ResetCode, Stream, Tunnel
from protocol.aio.tcp import TcpEnd, carry
from protocol.messages import ClientArrival, ClientForward, ClientOpen, Open

logger = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 20.0


class Link:
    """A tunnel to the hub that is there again when it ended."""

    def __init__(self, hub: AsyncClient) -> None:
        self._hub = hub
        self._tunnel: Tunnel | None = None
        self._up = asyncio.Event()
        self._arrivals: dict[str, Handler] = {}

    async def run(self) -> NoReturn:
        """Keep the tunnel up until cancelled.

        Raises:
            MooringError: the first attempt failed, or the hub refuses us.
        """
        waits, had_one = Waits(), False
        while True:
            try:
                await self._one_life(waits)
                had_one = True
            except (HubUnreachable, Unavailable) as error:
                if not had_one:
                    raise
                logger.warning("%s", error)
            await waits.wait()

    async def _one_life(self, waits: Waits) -> None:
        async with self._hub.tunnel(self._arrived) as tunnel:
            self._tunnel = tunnel
            self._up.set()
            waits.connected()
            try:
                reason = await tunnel.wait_closed()
            finally:
                self._up.clear()
                self._tunnel = None
            if (error := refused(tunnel)) is not None:
                raise error
        logger.warning("the tunnel to %s ended: %s", self._hub.identity.url, reason)

    async def up(self) -> None:
        """Wait until the tunnel is there."""
        await self._up.wait()

    async def open(self, message: ClientOpen) -> Stream:
        """Open a stream, waiting up to 20 s for the tunnel.

        Raises:
            ProtocolError: the tunnel was cut at that moment.
            TimeoutError: there was none in time.
        """
        async with asyncio.timeout(OPEN_TIMEOUT_S):
            await self._up.wait()
        assert self._tunnel is not None, "the event is set while it is there"
        return await self._tunnel.open(message)

    @contextmanager
    def arrivals(self, listener: str, serve: Handler) -> Iterator[None]:
        """Serve the connections of a `ClientListen` of this name while the block runs."""
        self._arrivals[listener] = serve
        try:
            yield
        finally:
            del self._arrivals[listener]

    async def _arrived(self, opened: Open, stream: Stream) -> None:
        serve = self._arrivals.get(opened.listener) if isinstance(opened, ClientArrival) else None
        if serve is None:
            stream.reset(ResetCode.NOT_FOUND, "nothing listens here by that name")
        else:
            await serve(opened, stream)


@dataclass(frozen=True, slots=True)
class Forwarder:
    """Joins connections to a place that a node can reach."""

    link: Link
    node: str
    host: str
    port: int
    failed: Callable[[str, Exception], None] = lambda peer, error: None
    """Called with the peer's address when a connection could not be joined."""

    def listen(self, bind: str, port: int) -> AbstractAsyncContextManager[list[tuple[str, int]]]:
        """Accept connections while the block runs; see `accepting`.

        Raises:
            OSError: the address can't be had.
        """
        return accepting(bind, port, TcpEnd, self._serve)

    async def _serve(self, end: TcpEnd) -> None:
        try:
            message = ClientForward(node=self.node, host=self.host, port=self.port)
            async with await self.link.open(message) as stream:
                await carry(end, stream)
        except (ProtocolError, TimeoutError) as error:
            end.abort()
            self.failed(end.peer, error)
        except OSError as error:
            logger.debug("a local connection ended: %s", error)
