"""TLS to the proxy itself, hidden behind a plain socket.

A tunnel through an https:// proxy is TLS inside TLS. `over_tls` speaks the outer one and gives a
socket that everything else uses as if the proxy were a plain one. Both ends pause each other, so
that no more than their write buffers' limits are kept; the pair lives as long as its sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from typing import cast

KERNEL_BUFFER_BYTES = 64 * 1024
"""Little: what waits in the pair is beyond the reach of the tunnel's scheduler."""
GONE_S = 2.0


class _End(asyncio.Protocol):
    """One of two connections that pass on what they receive to each other."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _End = self
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none of asyncio's

    def data_received(self, data: bytes) -> None:
        if self.other.transport is not None:
            self.other.transport.write(data)

    def pause_writing(self) -> None:
        if self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other.transport is not None:
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        if self.other.transport is not None:
            self.other.transport.close()


class Relayed(socket.socket):
    """A socket whose other end leads through TLS, which has an end of its own."""

    ends: tuple[_End, ...] = ()


async def until_gone(connected: socket.socket | None) -> None:
    """Wait, not for long, until nothing is left of a closed socket: a loop may end after it."""
    if isinstance(connected, Relayed):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GONE_S):
                for end in connected.ends:
                    await end.lost.wait()


async def over_tls(connected: socket.socket, host: str) -> Relayed:
    """Return a non-blocking socket that leads through TLS over `connected`, which it takes over.

    The certificate must be for `host` by a CA that the system trusts.

    Raises:
        OSError, ssl.SSLError: TLS failed; `connected` is closed.
    """
    loop = asyncio.get_running_loop()
    near, far = _pair()
    inner, outer = _End(), _End()
    inner.other, outer.other = outer, inner
    try:
        for its_socket in (near, far):
            its_socket.setblocking(False)
            its_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER_BYTES)
        await loop.create_connection(lambda: inner, sock=far)
        context = ssl.create_default_context()
        await loop.create_connection(
            lambda: outer, sock=connected, ssl=context, server_hostname=host
        )
    except BaseException:
        for end, its_socket in ((inner, far), (outer, connected)):
            if end.transport is None:
                its_socket.close()
            else:
                end.transport.abort()
        near.close()
        raise
    near.ends = (inner, outer)
    return near


def _pair() -> tuple[Relayed, socket.socket]:
    """Two ends of a connection by TCP on loopback: picows sets options of TCP on what it is given.

    Raises:
        ConnectionError: another process connected to the listening socket first.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listening:
        near = Relayed(fileno=socket.create_connection(listening.getsockname()).detach())
        far, peer = listening.accept()
    if peer != near.getsockname():
        near.close()
        far.close()
        raise ConnectionError("a stranger connected to a port of our own")
    return near, far
