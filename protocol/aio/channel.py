"""Typed records on a stream: a `Channel` sends and receives the Structs of `protocol.messages`."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from protocol import records
from protocol.aio.stream import Stream
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

    async def receive(self) -> ReceiveT | None:
        """The next record, or None when the peer has finished.

        Raises:
            StreamReset, TunnelClosed: as `Stream.read`.
            RemoteProtocolError: the peer sent something else; the stream has been reset.
        """
        while not self._ready:
            data = await self.stream.read()
            try:
                if not data:
                    if self._records.mid_record:
                        raise RemoteProtocolError("the stream ended inside a record")
                    return None
                self._ready.extend(self._records.feed(data))
            except RemoteProtocolError as error:
                self.stream.reset(ResetCode.PROTOCOL, error.reason)
                raise
        return self._ready.popleft()

    def finish(self) -> None:
        """Send FIN."""
        self.stream.finish()

    def reset(self, code: ResetCode, reason: str = "") -> None:
        """Reset the stream."""
        self.stream.reset(code, reason)
