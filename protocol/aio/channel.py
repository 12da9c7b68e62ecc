"""Typed records on a stream: a `Channel` carries the Structs of `protocol.record_types`."""

from __future__ import annotations

import time
from collections import deque
from typing import Generic, TypeVar

from protocol import records
from protocol.aio.stream import HALF_DONE_S, Stream
from protocol.errors import RemoteProtocolError, ResetCode
from protocol.messages import Message

SendT = TypeVar("SendT", bound=Message)
ReceiveT = TypeVar("ReceiveT")


class Channel(Generic[SendT, ReceiveT]):
    """Length-prefixed msgpack records over one stream."""

    __slots__ = ("_ready", "_records", "stream")

    def __init__(self, stream: Stream, receives: object) -> None:
        """`receives` is the Struct, or the union of Structs, that the peer may send here."""
        self.stream = stream
        self._records: records.RecordReader[ReceiveT] = records.RecordReader(receives)
        self._ready: deque[ReceiveT] = deque()

    async def send(self, message: SendT) -> None:
        """Send one record; waits like `Stream.write`, and raises what it raises."""
        await self.stream.write(records.encode(message))

    def push(self, message: SendT) -> int:
        """Send one record without waiting; returns and raises what `Stream.push` does."""
        return self.stream.push(records.encode(message))

    async def receive(self) -> ReceiveT | None:
        """The next record, or None when the peer has finished.

        Raises:
            StreamReset, TunnelClosed: as `Stream.read`.
            RemoteProtocolError: the peer sent something else; the stream has been reset.
        """
        if not self._ready:
            try:
                await self._read_records()
            finally:
                self.stream.due = None
        return self._ready.popleft() if self._ready else None

    async def _read_records(self) -> None:
        """Read until a record is whole; a record that was begun has to end in time."""
        while not self._ready:
            if self._records.mid_record and self.stream.due is None:
                self.stream.due = time.monotonic() + HALF_DONE_S
            data = await self.stream.read()
            try:
                if not data:
                    if self._records.mid_record:
                        raise RemoteProtocolError("the stream ended inside a record")
                    return
                self._ready.extend(self._records.feed(data))
            except RemoteProtocolError as error:
                self.stream.reset(ResetCode.PROTOCOL, error.reason)
                raise

    def finish(self) -> None:
        """Send FIN."""
        self.stream.finish()

    def leave(self) -> None:
        """Send FIN and be done, as `Stream.leave`."""
        self.stream.leave()

    def reset(self, code: ResetCode, reason: str = "") -> None:
        """Reset the stream."""
        self.stream.reset(code, reason)
