"""One stream of a tunnel as raw bytes, with credit given back only for what was read.

A `Stream` belongs to the task that reads it and the task that writes it; it may be one task or two.
What waits unread is bounded by the stream's window, what waits unsent by `WRITE_HIGH` and one
write. Bulk needs no task: `pipe` gives a stream to a `Sink`, which is called as bytes come in and
go out.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol

from protocol.errors import ProtocolError, ResetCode
from protocol.frames import Bytes, Payload
from protocol.messages import Open

if TYPE_CHECKING:
    from protocol.aio.tunnel import Tunnel

WRITE_HIGH = 256 * 1024  # bytes; `write` waits above
WRITE_LOW = 64 * 1024  # bytes; and goes on below
HALF_DONE_S = 60.0  # a stream that one side is done with, or a record begun, has so long
CRUMB = 1024  # bytes; a piece smaller than this is joined to a small one before it


class Sink(Protocol):
    """Takes what comes in on a piped stream; called by the tunnel, so it must not wait."""

    def received(self, data: Bytes) -> None:
        """Bytes came in; `Stream.consumed` gives their credit back once they have gone on.

        A view is good only during this call.
        """

    def finished(self) -> None:
        """The peer sends nothing more."""

    def drained(self, pending: int) -> None:
        """A frame was sent; `pending` bytes of the stream are left."""

    def failed(self, error: ProtocolError) -> None:
        """The stream is gone, by either side's reset or with its tunnel."""


class Stream:
    """One stream. Made by `Tunnel`, never directly."""

    __slots__ = (
        "_abandoned", "_counted", "_eof", "_error", "_finished", "_holding", "_reader", "_sink",
        "_tunnel", "_unread", "_writers", "due", "held", "id", "message",
    )  # fmt: skip

    def __init__(self, tunnel: Tunnel, stream_id: int, message: Open) -> None:
        self.id = stream_id
        self.message = message
        """The OPEN that made this stream."""
        self.held = 0
        """Bytes that wait unread."""
        self._counted = 0  # of these, by the tunnel
        self.due: float | None = None
        """When the tunnel resets it, on the monotonic clock, unless something is done before."""
        self._abandoned = False
        self._holding = tunnel.holding
        self._tunnel = tunnel
        self._unread: deque[bytes] = deque()
        self._eof = False
        self._error: ProtocolError | None = None
        self._finished = False
        self._reader: asyncio.Future[None] | None = None
        self._sink: Sink | None = None
        self._writers: list[asyncio.Future[None]] = []

    async def read(self, limit: int = 65536) -> bytes:
        """Bytes that came in, at least 1 and at most `limit`; `b""` once the peer has finished.

        Raises:
            StreamReset: the peer reset the stream.
            TunnelClosed: the tunnel went away.
        """
        while not self._unread:
            if self._error is not None:
                raise self._error
            if self._eof:
                return b""
            if self._reader is not None:
                raise RuntimeError("two tasks read one stream")
            self._reader = self._tunnel.loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        piece = self._unread.popleft()
        if len(piece) > limit:
            self._unread.appendleft(piece[limit:])
            piece = piece[:limit]
        self.consumed(len(piece))
        return piece

    async def write(self, data: bytes | memoryview) -> None:
        """Queue `data`; wait while more than 256 KiB of this stream wait to be sent.

        Raises:
            StreamReset: the peer reset the stream.
            TunnelClosed: the tunnel went away.
            LocalProtocolError: after `finish`.
        """
        if self._error is not None:
            raise self._error
        if self._tunnel.send(self.id, data) <= WRITE_HIGH:
            return
        writable = self._tunnel.loop.create_future()
        self._writers.append(writable)
        try:
            await writable
        finally:
            if writable in self._writers:
                self._writers.remove(writable)
        if self._error is not None:
            raise self._error

    def pipe(self, sink: Sink) -> None:
        """Give what waits and all that comes to `sink`; from now on nobody reads the stream."""
        self._sink = sink
        while self._unread:
            sink.received(self._unread.popleft())
        if self._error is not None:
            sink.failed(self._error)
        elif self._eof:
            sink.finished()

    def push(self, data: Payload) -> int:
        """Queue `data` without waiting; return how many bytes of the stream wait to be sent.

        The caller bounds them: it stops when much waits, and goes on when its sink is told that
        it drained. Bytes for a stream that is gone are dropped.

        Raises:
            LocalProtocolError: after `finish`.
        """
        return 0 if self._error is not None else self._tunnel.send(self.id, data)

    def consumed(self, size: int) -> None:
        """Give the peer credit for `size` bytes that were read, or that the sink has passed on."""
        self.held -= min(size, self.held)
        if self.held != self._counted:
            self._count()
        self._tunnel.consumed(self.id, size)

    def finish(self) -> None:
        """Send FIN behind what waits: this side sends nothing more. Twice is once."""
        if self._error is None and not self._finished:
            self._finished = True
            self._tunnel.finish(self.id)

    def reset(self, code: ResetCode, reason: str = "") -> None:
        """End the stream both ways at once, unless it has ended already; what waits is dropped."""
        self.drop()
        self._tunnel.reset(self.id, code, reason)

    def leave(self) -> None:
        """Send FIN and be done: what still comes is dropped; the peer has 60 s to finish too."""
        self.finish()
        self._abandoned = True
        self.due = time.monotonic() + HALF_DONE_S
        self.drop()

    def close(self) -> None:
        """Be done with the stream: FIN when the peer has finished too, else RESET(CANCELLED)."""
        if self._eof:
            self.finish()
        else:
            self.reset(ResetCode.CANCELLED)

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @property
    def ended(self) -> bool:
        """The stream is gone: reset, or its tunnel closed."""
        return self._error is not None

    # --- called by the tunnel ---

    def received(self, data: Bytes) -> None:
        """Bytes came in; crumbs are joined, so that what waits costs no more than its bytes."""
        if self._abandoned:
            return
        self.held += len(data)
        if self._sink is not None:
            self._sink.received(data)
            if self.held != self._counted:  # what went on at once never waited
                self._count()
            return
        unread = self._unread
        if len(data) < CRUMB and unread and len(unread[-1]) < CRUMB:
            unread[-1] += bytes(data)
        else:
            unread.append(bytes(data))
        self._count()
        self._wake_reader()

    def drop(self) -> None:
        """Nobody will read what waits."""
        self._unread.clear()
        self.held = 0
        self._count()

    def _count(self) -> None:
        """Tell the tunnel how much waits now."""
        change = self.held - self._counted
        self._counted = self.held
        if change > 0:
            self._holding.add(change)
        else:
            self._holding.remove(-change)

    def __del__(self) -> None:
        # A stream that nobody refers to can't be read: what waited in it is no longer held.
        if self._counted:
            self._holding.remove(self._counted)

    def finished(self) -> None:
        """The peer sent FIN."""
        self._eof = True
        if self._sink is not None:
            self._sink.finished()
        self._wake_reader()

    def drained(self, pending: int) -> None:
        """`pending` bytes are left to send."""
        if self._sink is not None:
            self._sink.drained(pending)
        if self._writers and pending <= WRITE_LOW:
            self._wake_writers()

    def failed(self, error: ProtocolError) -> None:
        """The stream is gone; what was read is kept, what comes after raises `error`."""
        if self._error is None:
            self._error = error
            if self._sink is not None:
                self._sink.failed(error)
            self._wake_reader()
            self._wake_writers()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_writers(self) -> None:
        for writer in self._writers:
            if not writer.done():
                writer.set_result(None)
        self._writers.clear()
