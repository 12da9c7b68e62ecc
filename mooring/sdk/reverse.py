"""Ports on a node whose connections come out here: `Reverse`.

The rule it guards: the same port is asked for again whenever hub, node or network were away; it is
given up when somebody closed it or it is no longer allowed. The tunnel serves each connection as a
`ClientArrival` stream, 200 at once; more wait.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from mooring.sdk.accepting import MAX_CONNECTIONS
from mooring.sdk.forwarding import Link
from mooring.sdk.waits import Waits
from protocol.aio import Channel, ProtocolError, ResetCode, Stream, StreamReset
from protocol.aio.tcp import TcpEnd, carry
from protocol.messages import ClientArrival, ClientListen, Message, Open
from protocol.record_types import Listening

logger = logging.getLogger(__name__)

CONNECT_S = 10.0
FOR_GOOD = frozenset(
    {ResetCode.REFUSED, ResetCode.NOT_FOUND, ResetCode.UNKNOWN_KIND, ResetCode.CANCELLED}
)
"""Ends after which the port is not asked for again."""


@dataclass(frozen=True, slots=True)
class Reverse:
    """Joins connections to a port of a node to a place that can be reached from here."""

    link: Link
    node: str
    host: str
    port: int
    failed: Callable[[str, Exception], None] = lambda peer, error: None
    """Called with the peer's address when a connection could not be joined."""
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_CONNECTIONS))

    async def run(
        self, bind: str, port: int, opened: Callable[[int], None] = lambda port: None
    ) -> NoReturn:
        """Keep a port of the node open until cancelled.

        Args:
            bind: the node's address to listen on.
            port: 0 lets the node's system pick one, which is kept.
            opened: called with the port each time it was opened.

        Raises:
            StreamReset: it can't be opened the first time, or was given up.
        """
        name, waits, was_open = secrets.token_hex(8), Waits(), False

        def now_open(real: int) -> None:
            nonlocal port, was_open
            port, was_open = real, True
            waits.connected()
            opened(real)

        with self.link.arrivals(name, self._serve):
            while True:
                try:
                    reason = await self._one_life(name, bind, port, now_open)
                except StreamReset as error:
                    if not was_open or error.code in FOR_GOOD:
                        raise
                    reason = str(error)
                except (ProtocolError, TimeoutError) as error:
                    reason = str(error) or "no tunnel yet"
                logger.warning("%s:%d is closed: %s", self.node, port, reason)
                await waits.wait()

    async def _one_life(
        self, name: str, bind: str, port: int, opened: Callable[[int], None]
    ) -> str:
        message = ClientListen(listener=name, node=self.node, bind=bind, port=port)
        async with await self.link.open(message) as stream:
            channel: Channel[Message, Listening] = Channel(stream, Listening)
            while (listening := await channel.receive()) is not None:
                opened(listening.port)
        return "the hub closed it"

    async def _serve(self, opened: Open, stream: Stream) -> None:
        assert isinstance(opened, ClientArrival), "the tunnel accepts nothing else"
        loop = asyncio.get_running_loop()
        async with self._slots:
            try:
                async with asyncio.timeout(CONNECT_S):
                    _, end = await loop.create_connection(TcpEnd, self.host, self.port)
                await carry(end, stream)
            except OSError as error:
                reason = error.strerror or str(error) or "timed out"
                stream.reset(ResetCode.UNREACHABLE, f"{self.host}:{self.port}: {reason}")
                self.failed(opened.peer, error)
            except ProtocolError as error:
                logger.debug("an arrival from %s ended: %s", opened.peer, error)
