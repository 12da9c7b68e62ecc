"""Serves one `forward` stream: a TCP connection from this node, bytes both ways.

The name is resolved once, the policy is asked about each address, and the connection goes to an
address that it allowed, so a name that changes its mind gains nothing. Each direction ends by
itself (half-close) and waits for the slower side; at most 256 KiB and one read wait here.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, cast

from edge_agent.policy import Policy, PolicyFile, Refused
from protocol.aio import ResetCode, Stream, StreamReset, TunnelClosed
from protocol.messages import Forward

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECT_S = 10.0
"""For resolving and connecting together."""
_BUFFER = 256 * 1024
_PIECE = 64 * 1024


async def handle_forward(opening: Forward, stream: Stream, policy: PolicyFile) -> None:
    """Serve one `forward` stream until both directions have ended."""
    target = f"{opening.host}:{opening.port}"
    try:
        rules = policy.current()
        async with asyncio.timeout(CONNECT_S):
            connection = await _connect(opening, rules)
    except Refused as error:
        stream.reset(ResetCode.REFUSED, str(error))
    except TimeoutError:
        stream.reset(ResetCode.TIMEOUT, f"{target} did not answer within {CONNECT_S:.0f} s")
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        stream.reset(ResetCode.UNREACHABLE, f"{target}: {reason}")
    else:
        await _copy(connection, stream)


async def _connect(opening: Forward, policy: Policy) -> _Connection:
    """Connect to the first address that is allowed and answers."""
    allowed = _allowed(opening, await _resolve(opening.host, opening.port), policy)
    loop = asyncio.get_running_loop()
    for address in allowed[:-1]:
        with contextlib.suppress(OSError):
            return (await loop.create_connection(_Connection, address, opening.port))[1]
    return (await loop.create_connection(_Connection, allowed[-1], opening.port))[1]


def _allowed(opening: Forward, addresses: Sequence[str], policy: Policy) -> list[str]:
    allowed, refusal = [], Refused(f"{opening.host} has no address")
    for address in addresses:
        try:
            policy.allow_forward(opening.host, address, opening.port)
        except Refused as error:
            refusal = error
        else:
            allowed.append(address)
    if not allowed:
        raise refusal
    return allowed


async def _resolve(host: str, port: int) -> list[str]:
    """Return the host's addresses as text, without asking anybody when it is one itself."""
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(host.strip("[]")))]
    if "\0" in host:
        raise OSError("the host contains a NUL byte")
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise OSError(f"{host!r} is no host name") from error
    return [str(address[0]) for *_, address in found]


async def _copy(connection: _Connection, stream: Stream) -> None:
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_from_target(connection, stream))
            await _to_target(connection, stream)
    except* (StreamReset, TunnelClosed):
        pass
    except* OSError as errors:
        stream.reset(ResetCode.UNREACHABLE, f"the target broke off: {errors.exceptions[0]}")
    finally:
        connection.abort()


async def _to_target(connection: _Connection, stream: Stream) -> None:
    while data := await stream.read(_PIECE):
        await connection.write(data)
    connection.write_eof()


async def _from_target(connection: _Connection, stream: Stream) -> None:
    while data := await connection.read():
        await stream.write(data)
    stream.finish()


class _Connection(asyncio.Protocol):
    """The TCP side: what came in waits in a bounded queue, a full socket makes `write` wait."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received: deque[bytes] = deque()
        self._received_bytes = 0
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._ended = False
        self._error: Exception | None = None

    async def read(self) -> bytes:
        """Return what came in; `b""` once the target has finished.

        Raises:
            OSError: The connection broke.
        """
        while not self._received:
            if self._error is not None:
                raise self._error
            if self._ended:
                return b""
            self._readable.clear()
            await self._readable.wait()
        data = self._received.popleft()
        if self._received_bytes >= _BUFFER > self._received_bytes - len(data) and not self._ended:
            self._open().resume_reading()
        self._received_bytes -= len(data)
        return data

    async def write(self, data: bytes) -> None:
        """Send; waits while the socket takes no more.

        Raises:
            OSError: The connection broke.
        """
        if self._error is None and self._open().is_closing():
            self._error = ConnectionResetError("the connection is closed")
        if self._error is not None:
            raise self._error
        self._open().write(data)
        await self._writable.wait()
        if self._error is not None:
            raise self._error

    def write_eof(self) -> None:
        """Send FIN behind what waits."""
        if self._error is None and not self._open().is_closing():
            self._open().write_eof()

    def abort(self) -> None:
        """Close; what was written is sent first when both directions ended well."""
        transport = self._open()
        if self._ended and self._error is None:
            transport.close()
        else:
            transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio)."""
        # uvloop's transport is one in all but name.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_BUFFER, low=_PIECE)
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        """Take bytes from the target (asyncio)."""
        self._received.append(data)
        self._received_bytes += len(data)
        if self._received_bytes >= _BUFFER:
            self._open().pause_reading()
        self._readable.set()

    def eof_received(self) -> bool:
        """Keep the other direction open (asyncio)."""
        self._ended = True
        self._readable.set()
        return True

    def pause_writing(self) -> None:
        """Make `write` wait (asyncio)."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let `write` go on (asyncio)."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake both directions (asyncio)."""
        self._ended = True
        self._error = exc
        self._readable.set()
        self._writable.set()

    def _open(self) -> asyncio.Transport:
        assert self._transport is not None, "used only once it is connected"
        return self._transport
