"""`Connector`: a connection to a service, over a stream of its node's tunnel.

The rule it guards: bytes are read from the node only when somebody asked for them, so credit runs
to the service; each has its deadline; and whatever keeps the service from answering becomes one
`Unreachable` with words for people. With https the hub itself speaks TLS to the service.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from hub.connections import Connection
from hub.errors import NodeOffline
from hub.node_reports import clean_text
from hub.nodeview import NodeView
from hub.published.services import Service
from hub.registry import Registry
from protocol.aio import Stream
from protocol.errors import LocalProtocolError, ResetCode, StreamReset, TunnelClosed
from protocol.messages import Forward

PIECE_BYTES = 64 * 1024
WRITE_S = 60.0
"""A service that takes nothing for so long is given up."""
HANDSHAKE_S = 20.0


class Unreachable(Exception):
    """The service does not answer as it should; `status` is HTTP's."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class Wire(Protocol):
    """Bytes both ways, plain or over TLS."""

    async def read(self) -> bytes:
        """Wait for bytes; `b""` once the service has finished."""

    async def write(self, data: bytes) -> None:
        """Send; waits while the service takes no more."""


@dataclass(frozen=True, slots=True)
class Connector:
    """Opens connections; all of them count."""

    registry: Registry

    @asynccontextmanager
    async def connect(
        self, service: Service, node: NodeView, subject: str, connection: Connection
    ) -> AsyncIterator[Wire]:
        """Connect to a service for as long as the block runs.

        Args:
            service: What to connect to.
            node: Where it is.
            subject: For whom, by name; the node is told.
            connection: Counts the bytes, and ends what it is told to end.

        Raises:
            Unreachable: here or in the block, when the node or the service is not there.
        """
        row = service.row
        opening = Forward(host=row.host, port=row.port, subject=subject)
        try:
            stream = await self.registry.open(node.id, opening)
        except NodeOffline as error:
            raise Unreachable(
                503, f"{node.name}, which serves this, is not connected. Try again later."
            ) from error
        except LocalProtocolError as error:
            raise Unreachable(503, f"{node.name} is too busy: {error}. Try again.") from error
        try:
            connection.end_by(lambda cause: stream.reset(cause.code, cause.reason))
            plain = _Plain(stream, service, connection)
            yield plain if row.scheme == "http" else await _shake_hands(plain, service)
        except (StreamReset, TunnelClosed) as error:
            raise _unreachable(node, service, connection.ended or error) from error
        finally:
            stream.reset(ResetCode.CANCELLED, "the request is over")


def _unreachable(
    node: NodeView, service: Service, error: StreamReset | TunnelClosed
) -> Unreachable:
    where = f"{node.name} {service.row.host}:{service.row.port}"
    match error:
        case StreamReset(code=ResetCode.REFUSED):
            return Unreachable(502, f"{node.name} refused: {clean_text(error.reason)}")
        case StreamReset(code=ResetCode.TIMEOUT):
            return Unreachable(504, f"{where} does not answer. Is the service running?")
        case StreamReset():
            return Unreachable(502, f"{where} cannot be reached. Is the service running?")
        case _:
            return Unreachable(503, f"{node.name} lost its connection. Try again.")


class _Plain:
    """The stream itself, counted."""

    def __init__(self, stream: Stream, service: Service, connection: Connection) -> None:
        self._stream = stream
        self._service = service
        self._traffic = connection.traffic

    async def read(self) -> bytes:
        data = await self._stream.read(PIECE_BYTES)
        self._traffic.received.size_bytes += len(data)
        self._service.received_bytes += len(data)
        return data

    async def write(self, data: bytes) -> None:
        try:
            async with asyncio.timeout(WRITE_S):
                await self._stream.write(data)
        except TimeoutError:
            raise Unreachable(504, "the service takes no more of the request") from None
        self._traffic.sent.size_bytes += len(data)
        self._service.sent_bytes += len(data)


class _Tls:
    """TLS over a plain connection; one task may read while another writes."""

    def __init__(self, plain: _Plain, service: Service) -> None:
        self._plain = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = _context(service.row.verify).wrap_bio(
            self._incoming, self._outgoing, server_hostname=service.row.host
        )

    async def shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            else:
                return await self._flush()

    async def read(self) -> bytes:
        while True:
            try:
                return self._tls.read(PIECE_BYTES)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLError as error:
                raise Unreachable(502, f"TLS with the service broke: {error.reason}") from error

    async def write(self, data: bytes) -> None:
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise Unreachable(502, f"TLS with the service broke: {error.reason}") from error
        await self._flush()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._plain.write(self._outgoing.read())

    async def _fill(self) -> None:
        data = await self._plain.read()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()


async def _shake_hands(plain: _Plain, service: Service) -> _Tls:
    try:
        tls = _Tls(plain, service)
        async with asyncio.timeout(HANDSHAKE_S):
            await tls.shake_hands()
    except TimeoutError:
        raise Unreachable(504, "the service does not finish the TLS handshake") from None
    except ssl.SSLCertVerificationError as error:
        raise Unreachable(
            502, f"the service's certificate is not valid: {clean_text(error.verify_message)}"
        ) from error
    except ssl.SSLError as error:
        raise Unreachable(
            502, f"TLS with the service failed ({error.reason}). Does it speak https?"
        ) from error
    return tls


@functools.cache
def _context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
