"""A SOCKS5 proxy here whose connections begin on a node: `SocksProxy`.

The rule it guards: a program is told that it is connected only when the node is; else the reply
says why, as far as RFC 1928 has words for it. Names are resolved on the node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import cast

from mooring.sdk.accepting import accepting
from mooring.sdk.forwarding import Link
from mooring.sdk.socks5 import Destination, Handshake, Refused, Reply, reply
from protocol.aio import ProtocolError, ResetCode, Stream, StreamReset, TunnelClosed
from protocol.aio.tcp import TcpEnd, carry
from protocol.messages import CONFIRMED, ClientForward

logger = logging.getLogger(__name__)

HANDSHAKE_S = 10.0
CONFIRM_S = 20.0  # a node resolves and connects within 10 s, or says that it could not

_REPLIES = {
    ResetCode.REFUSED: Reply.NOT_ALLOWED,
    ResetCode.UNREACHABLE: Reply.HOST_UNREACHABLE,
    ResetCode.NOT_FOUND: Reply.HOST_UNREACHABLE,
    ResetCode.TIMEOUT: Reply.TTL_EXPIRED,
}


@dataclass(frozen=True, slots=True)
class SocksProxy:
    """Joins programs that speak SOCKS5 to whatever place the node may connect to."""

    link: Link
    node: str
    failed: Callable[[str, Exception], None] = lambda peer, error: None
    """Called with the peer's address when a connection could not be joined."""

    def listen(self, bind: str, port: int) -> AbstractAsyncContextManager[list[tuple[str, int]]]:
        """Accept connections while the block runs; see `accepting`.

        Nobody is asked for a password: whoever reaches the port may use it.

        Raises:
            OSError: the address can't be had.
        """
        return accepting(bind, port, lambda entered: _Door(entered, self.failed), self._serve)

    async def _serve(self, door: _Door) -> None:
        place = door.destination
        opened = ClientForward(
            node=self.node, host=place.host, port=place.port, via="socks", confirm=True
        )
        try:
            async with await self.link.open(opened) as stream:
                async with asyncio.timeout(CONFIRM_S):
                    await _confirmed(stream)
                door.let_in()
                stream.push(door.early)
                await carry(door.end, stream)
        except (ProtocolError, TimeoutError) as error:
            door.turn_away(_reply_to(error))
            self.failed(door.end.peer, error)
        except OSError as error:
            logger.debug("a local connection ended: %s", error)


async def _confirmed(stream: Stream) -> None:
    """Wait until the node is connected.

    Raises:
        ProtocolError: it is not, and why.
    """
    if await stream.read(1) != CONFIRMED:
        raise StreamReset(ResetCode.PROTOCOL, "the node did not say whether it is connected")


def _reply_to(error: Exception) -> Reply:
    match error:
        case StreamReset(code=code):
            return _REPLIES.get(code, Reply.FAILED)
        case TunnelClosed():
            return Reply.NETWORK_UNREACHABLE
        case TimeoutError():
            return Reply.TTL_EXPIRED
    return Reply.FAILED


class _Door(asyncio.Protocol):
    """A program's connection until it is let in; then `end` is the connection."""

    def __init__(
        self, entered: Callable[[_Door], None], failed: Callable[[str, Exception], None]
    ) -> None:
        """`entered` is called when the program has said where it wants to go."""
        self.end = TcpEnd()
        self._entered = entered
        self._failed = failed
        self._handshake = Handshake()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_in = False

    @property
    def destination(self) -> Destination:
        """Where the program wants to go."""
        assert self._handshake.destination is not None, "asked only once it has entered"
        return self._handshake.destination

    @property
    def early(self) -> bytes:
        """What the program sent for the destination without waiting."""
        return self._handshake.rest

    def let_in(self) -> None:
        """Tell the program that it is connected."""
        self._is_in = True
        self._say(reply(Reply.SUCCEEDED))

    def turn_away(self, code: Reply) -> None:
        """Tell the program why it is not, and close; one that was let in is cut off."""
        if self._is_in:
            self.abort()
        else:
            self._say(reply(code))
            self._open().close()

    def abort(self) -> None:
        """Close at once."""
        self._open().abort()

    # --- called by asyncio, until the program has entered ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give the program some time (asyncio)."""
        self._transport = cast(asyncio.Transport, transport)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(HANDSHAKE_S, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """Take a piece of the handshake (asyncio)."""
        transport = self._open()
        try:
            self._say(self._handshake.receive(data))
        except Refused as error:
            self._say(error.answer)
            transport.close()
            self._failed(str(transport.get_extra_info("peername", ("",))[0]), error)
            return
        if self._handshake.destination is not None:
            self._stop_waiting()
            transport.set_protocol(self.end)
            self.end.connection_made(transport)
            self._entered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The program left (asyncio)."""
        self._stop_waiting()

    def _say(self, data: bytes) -> None:
        if not self._open().is_closing():
            self._open().write(data)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _open(self) -> asyncio.Transport:
        assert self._transport is not None, "used only once it is connected"
        return self._transport
