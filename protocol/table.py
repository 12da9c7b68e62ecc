"""The streams of a session that are alive, by id, and the order of ids (SPEC §4.2).

The side that dialled gives odd ids, the accepting one even ids; both ascend, and none is given
twice. So a frame for a stream that is not here tells whether the stream has ended or never was.
"""

from __future__ import annotations

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.streams import StreamState


class StreamTable(dict[int, StreamState]):
    """One session's streams."""

    __slots__ = ("_next_id", "highest_peer_id", "own_parity", "peer_count")

    def __init__(self, first_id: int) -> None:
        """`first_id` is the first that this side gives: 1 or 2."""
        super().__init__()
        self._next_id = first_id
        self.own_parity = first_id % 2
        """The remainder modulo 2 of the ids that this side gives."""
        self.highest_peer_id = 0
        """The newest id that the peer gave."""
        self.peer_count = 0
        """How many of the streams the peer opened."""

    @property
    def own_count(self) -> int:
        """How many of the streams this side opened."""
        return len(self) - self.peer_count

    def give_id(self) -> int:
        """The id of the next stream that this side opens."""
        stream_id = self._next_id
        self._next_id += 2
        return stream_id

    def take_id(self, stream_id: int) -> None:
        """The peer opens a stream under this id.

        Raises:
            RemoteProtocolError: it is not the peer's to give, or not a new one.
        """
        if stream_id % 2 == self.own_parity or stream_id <= self.highest_peer_id:
            raise RemoteProtocolError(f"OPEN of stream {stream_id} is out of order")
        self.highest_peer_id = stream_id

    def add(self, stream: StreamState) -> None:
        """A stream begins."""
        self[stream.id] = stream
        self.peer_count += stream.id % 2 != self.own_parity

    def remove(self, stream: StreamState) -> None:
        """A stream is over."""
        del self[stream.id]
        self.peer_count -= stream.id % 2 != self.own_parity

    def to_send_on(self, stream_id: int) -> StreamState:
        """The stream that the application names.

        Raises:
            LocalProtocolError: it is not alive.
        """
        try:
            return self[stream_id]
        except KeyError:
            raise LocalProtocolError(f"stream {stream_id} is not open") from None

    def check_ended(self, stream_id: int) -> None:
        """A frame came for a stream that is not alive: check that it once was.

        Raises:
            RemoteProtocolError: nobody ever opened it.
        """
        ours = stream_id % 2 == self.own_parity
        newest = self._next_id - 2 if ours else self.highest_peer_id
        if not 0 < stream_id <= newest:
            raise RemoteProtocolError(f"a frame on stream {stream_id}, which was never opened")
