"""Joins a TCP connection to a stream: bytes both ways, each way ended by itself.

    end = (await loop.create_connection(TcpEnd, host, port))[1]    # dialled
    server = await loop.create_server(lambda: TcpEnd(serve), ...)  # accepted: serve(end) is called
    await carry(end, stream)

The rule it guards: a slow side slows the other one. The socket is read only while less than
`WRITE_HIGH` bytes wait for the tunnel, and the stream's peer gets credit only while the socket
takes what came in; so per direction at most a window and one read wait here. No task and no future
is made per piece. Before an end is carried it takes one read at most.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from protocol.aio.stream import WRITE_HIGH, WRITE_LOW, Stream
from protocol.errors import ProtocolError
from protocol.frames import HEADER_BYTES, Blank, Bytes

SOCKET_HIGH = 128 * 1024  # bytes that wait for the socket; above, credit waits too
SOCKET_LOW = 32 * 1024
CRUMB_BYTES = 4 * 1024  # read at once until more comes: keystrokes need no large room
PIECE_BYTES = 64 * 1024 - 16  # with its frame's and WebSocket's headers just four TLS records


class TcpEnd(asyncio.BufferedProtocol):
    """The TCP side of a carried stream; a protocol of asyncio, for dialled and accepted sockets."""

    def __init__(self, accepted: Callable[[TcpEnd], object] | None = None) -> None:
        """`accepted` is called with the end once it is connected; it must not wait."""
        self._accepted = accepted
        self._transport: asyncio.Transport | None = None
        self._stream: Stream | None = None
        self._done: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._room: Blank | None = None  # being read into
        self._size = CRUMB_BYTES  # of the next room
        self._early = b""  # came in before it was carried
        self._full = False  # the socket takes no more now
        self._owed = 0  # bytes whose credit waits for the socket
        self._ended = False  # the TCP peer sends nothing more
        self._finished = False  # the stream's peer sends nothing more
        self._paused = True  # not read from

    @property
    def peer(self) -> str:
        """The address of the TCP peer."""
        return str(self._open().get_extra_info("peername", ("",))[0])

    def abort(self) -> None:
        """Close at once; what waits is dropped and the peer sees a reset."""
        self._open().abort()

    async def carry(self, stream: Stream) -> None:
        """See the module's `carry`."""
        transport = self._open()
        self._done = asyncio.get_running_loop().create_future()
        self._stream = stream
        try:
            if self._error is not None:
                raise self._error
            stream.pipe(self)
            if self._early:
                stream.push(self._early)
                self._early = b""
            if self._ended:
                stream.finish()
            self._resume()
            await self._done
        except BaseException:
            transport.abort()
            raise
        transport.close()

    # --- called by the stream ---

    def received(self, data: Bytes) -> None:
        """Pass bytes to the socket; their credit waits while it is full (`Sink`)."""
        if self._error is not None:
            return
        self._open().write(bytes(data))
        if self._full:
            self._owed += len(data)
        else:
            self._credit(len(data))

    def finished(self) -> None:
        """Send FIN behind what waits (`Sink`)."""
        self._finished = True
        transport = self._open()
        if self._error is None and not transport.is_closing():
            transport.write_eof()
        self._end_if_done()

    def drained(self, pending: int) -> None:
        """Read on when the tunnel has taken enough (`Sink`)."""
        if self._paused and pending <= WRITE_LOW:
            self._resume()

    def failed(self, error: ProtocolError) -> None:
        """The stream is gone (`Sink`)."""
        self._fail(error)

    # --- called by asyncio ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio)."""
        # uvloop's transport is one in all but name.
        self._transport = cast(asyncio.Transport, transport)
        self._transport.pause_reading()  # asyncio heeds it here, uvloop reads once
        self._transport.set_write_buffer_limits(high=SOCKET_HIGH, low=SOCKET_LOW)
        if self._accepted is not None:
            self._accepted(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Room for one read; what comes in becomes a frame where it is (asyncio)."""
        self._room = Blank(HEADER_BYTES + self._size)
        return self._room.payload

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes from the socket; stop when much waits for the tunnel (asyncio)."""
        assert self._room is not None, "it was asked for"
        room, self._room = self._room, None
        if nbytes < self._size:
            room = Blank(memoryview(room)[: HEADER_BYTES + nbytes])
        if nbytes >= CRUMB_BYTES:
            self._size = PIECE_BYTES
        elif nbytes < CRUMB_BYTES // 2:
            self._size = CRUMB_BYTES
        if self._stream is None:
            self._early += room.payload
            self._open().pause_reading()
        elif self._stream.push(room) > WRITE_HIGH:
            self._paused = True
            self._open().pause_reading()

    def eof_received(self) -> bool:
        """Keep the other direction open (asyncio)."""
        self._ended = True
        if self._stream is not None:
            self._stream.finish()
        self._end_if_done()
        return True

    def pause_writing(self) -> None:
        """Keep credit back (asyncio)."""
        self._full = True

    def resume_writing(self) -> None:
        """Give the credit that was kept back (asyncio)."""
        self._full = False
        owed, self._owed = self._owed, 0
        self._credit(owed)
        self._end_if_done()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone (asyncio)."""
        self._fail(exc or ConnectionResetError("the connection is closed"))

    # --- inside ---

    def _open(self) -> asyncio.Transport:
        assert self._transport is not None, "used only once it is connected"
        return self._transport

    def _resume(self) -> None:
        if not self._ended and self._error is None:
            self._paused = False
            self._open().resume_reading()

    def _credit(self, size: int) -> None:
        if size and self._stream is not None:
            self._stream.consumed(size)

    def _end_if_done(self) -> None:
        both = self._ended and self._finished and not self._full
        if both and self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
            if self._done is not None and not self._done.done():
                self._done.set_exception(error)


async def carry(end: TcpEnd, stream: Stream) -> None:
    """Carry bytes both ways until both sides have finished, then close the connection.

    Whatever ends it early, a cancellation too, aborts the connection; what becomes of the stream
    then is the caller's business.

    Raises:
        StreamReset: the stream was reset.
        TunnelClosed: its tunnel went away.
        OSError: the connection broke.
    """
    await end.carry(stream)
