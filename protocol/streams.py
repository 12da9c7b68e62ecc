"""The life of one stream as a table: (state, event) -> state (SPEC §4.3).

An absent entry is a violation: of the peer for what was received, of ourselves for what we send.
Only this file moves a stream's state.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum, auto

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.frames import HEADER_BYTES, Blank, Class, Payload
from protocol.windows import ReceiveWindow, SendWindow

LEAST_CREDIT = 16 * 1024  # bytes; with less, a backlog waits for more: a large part of a window


class State(IntEnum):
    """Where a stream is in its life. Numbers: their hash is looked up for every frame."""

    OPEN = auto()
    FINISHED_LOCAL = auto()  # we sent FIN
    FINISHED_REMOTE = auto()  # the peer sent FIN
    CLOSED = auto()


class Happening(IntEnum):
    """What can happen to a stream."""

    SEND_DATA = auto()
    SEND_FIN = auto()
    SEND_RESET = auto()
    RECEIVE_DATA = auto()
    RECEIVE_FIN = auto()
    RECEIVE_RESET = auto()


S, H = State, Happening
TRANSITIONS: dict[tuple[State, Happening], State] = {
    (S.OPEN, H.SEND_DATA): S.OPEN,
    (S.OPEN, H.SEND_FIN): S.FINISHED_LOCAL,
    (S.OPEN, H.SEND_RESET): S.CLOSED,
    (S.OPEN, H.RECEIVE_DATA): S.OPEN,
    (S.OPEN, H.RECEIVE_FIN): S.FINISHED_REMOTE,
    (S.OPEN, H.RECEIVE_RESET): S.CLOSED,
    (S.FINISHED_LOCAL, H.SEND_RESET): S.CLOSED,
    (S.FINISHED_LOCAL, H.RECEIVE_DATA): S.FINISHED_LOCAL,
    (S.FINISHED_LOCAL, H.RECEIVE_FIN): S.CLOSED,
    (S.FINISHED_LOCAL, H.RECEIVE_RESET): S.CLOSED,
    (S.FINISHED_REMOTE, H.SEND_DATA): S.FINISHED_REMOTE,
    (S.FINISHED_REMOTE, H.SEND_FIN): S.CLOSED,
    (S.FINISHED_REMOTE, H.SEND_RESET): S.CLOSED,
    (S.FINISHED_REMOTE, H.RECEIVE_RESET): S.CLOSED,
}
_SENDING = frozenset({H.SEND_DATA, H.SEND_FIN, H.SEND_RESET})


class StreamState:
    """State, windows and send queue of one stream; owned by the session."""

    __slots__ = (
        "cls", "deficit", "fin_queued", "id", "pending", "pending_bytes", "receive", "scheduled",
        "send", "state", "was_granted",
    )  # fmt: skip

    def __init__(self, stream_id: int, cls: Class, receive: ReceiveWindow) -> None:
        self.id = stream_id
        self.cls = cls
        self.state = State.OPEN
        self.send = SendWindow()
        self.receive = receive
        self.pending: deque[Payload] = deque()
        self.pending_bytes = 0
        self.fin_queued = False
        self.deficit = 0
        self.scheduled = False
        self.was_granted = False
        """The peer has given credit: the first time is free, to make a window large at once."""

    def happens(self, happening: Happening) -> None:
        """Move the state.

        Raises:
            LocalProtocolError: we may not send this now.
            RemoteProtocolError: the peer may not send this now.
        """
        try:
            self.state = TRANSITIONS[self.state, happening]
        except KeyError:
            what = f"stream {self.id} is {self.state.name.lower()}: {happening.name.lower()}"
            error = LocalProtocolError if happening in _SENDING else RemoteProtocolError
            raise error(what) from None

    @property
    def can_send(self) -> bool:
        """Something waits and credit (or a bare FIN) lets it go; no crumbs of a backlog."""
        if self.pending_bytes:
            credit = self.send.credit
            return credit >= LEAST_CREDIT or credit >= self.pending_bytes
        return self.fin_queued

    @property
    def is_stalled(self) -> bool:
        """Something waits and there is no credit for it."""
        return self.pending_bytes > 0 and self.send.credit == 0

    def take(self, limit: int) -> tuple[Payload, int]:
        """Remove up to `limit` bytes from the queue, within the credit; never joins two pieces."""
        if not self.pending:
            return b"", 0
        limit = min(limit, self.send.credit)
        piece = self.pending[0]
        size = len(piece) - HEADER_BYTES if type(piece) is Blank else len(piece)
        if size <= limit:
            self.pending.popleft()
        else:
            view = piece.payload if type(piece) is Blank else memoryview(piece)
            self.pending[0] = view[limit:]
            piece, size = view[:limit], limit
        self.pending_bytes -= size
        self.send.credit -= size
        return piece, size
