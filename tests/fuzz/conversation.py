"""Two sessions, a wire between them and a string of bytes that says what happens next.

The bytes are a program: each operation is one byte and its arguments. The agent may at any time be
replaced by a stranger, who sends what the program says: from then on only the hub's own promises
count (documented exceptions, bounded queues, credit that is never negative, a budget that is given
back). While both ends are honest, nothing may be a violation, and what arrives is what was sent.
"""

from __future__ import annotations

from collections import deque

from protocol import frames, messages
from protocol.errors import GoAwayCode, LocalProtocolError, RemoteProtocolError, ResetCode
from protocol.events import DataReceived, Event, StreamWasReset
from protocol.frames import MAX_CREDIT, Hello, Type
from protocol.messages import AgentOpen, HubOpen
from protocol.replay import REPLAY_BUDGET
from protocol.session import MAX_CONTROL_FRAMES, Session, Side
from protocol.windows import MAX_WINDOW, TUNNEL_BUDGET, Budget

OPERATIONS = 400
"""A longer program says nothing new."""
CHECK_EVERY = 8
NAME = b"n" * 32
_SIZES = (0, 1, 100, 16_384, 65_536, 90_000)
_SECONDS = (0.0, 0.01, 1.0, 16.0)
_OPENS: tuple[messages.Open, messages.Open] = (
    messages.Report(facts=messages.Facts(hostname="h")),
    messages.Forward(host="h", port=1),
)


class _End:
    """One session with what it sent, received and has not read."""

    def __init__(self, side: Side, accepts: object, budget: Budget) -> None:
        self.session = Session(
            side,
            Hello(software="fuzz"),
            0.0,
            accepts=accepts,
            budget=budget,
            name=b"" if side is Side.DIALLED else NAME,
        )
        self.wire: deque[bytes] = deque()
        self.sent: dict[int, int] = {}
        self.received: dict[int, int] = {}
        self.unread: dict[int, int] = {}
        self.broken: set[int] = set()
        """Streams that were reset: what was under way on them is lost."""

    def take(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, DataReceived):
                size = len(event.data)
                self.received[event.stream] = self.received.get(event.stream, 0) + size
                self.unread[event.stream] = self.unread.get(event.stream, 0) + size
            elif isinstance(event, StreamWasReset):
                self.broken.add(event.stream)


class Conversation:
    """Runs one program; any broken promise is an `AssertionError`, as is any other exception."""

    def __init__(self, program: bytes) -> None:
        self._program = program
        self._at = 0
        self._now = 0.0
        self._budget = Budget(2 * TUNNEL_BUDGET)
        self._ends = (
            _End(Side.DIALLED, HubOpen, self._budget),
            _End(Side.ACCEPTED, AgentOpen, self._budget),
        )
        self._honest = True

    def run(self) -> None:
        self._converse()
        self._check()
        if self._honest and self._settle():
            self._compare()
        for end in self._ends:
            end.session.end()
        assert self._budget.used == 0, "closed streams keep receive budget"

    def _converse(self) -> None:
        operations = (
            self._carry, self._carry, self._open, self._send, self._send, self._read,
            self._finish, self._reset, self._time, self._go_away, self._stranger, self._lose,
            self._reconnect,
        )  # fmt: skip
        for count in range(OPERATIONS):
            if self._at >= len(self._program):
                return
            choice = self._byte()
            end = self._ends[choice & 1]
            try:
                if operations[(choice >> 1) % len(operations)](end) is False:
                    return
            except LocalProtocolError:
                pass
            if count % CHECK_EVERY == 0:
                self._check()

    def _byte(self) -> int:
        self._at += 1
        return self._program[self._at - 1] if self._at <= len(self._program) else 0

    def _stream(self, end: _End) -> int:
        """Mostly one that is open; else one that may be anything."""
        number, ids = self._byte(), end.session.stream_ids
        return ids[number % len(ids)] if ids and number < 250 else number

    def _other(self, end: _End) -> _End:
        return self._ends[0] if end is self._ends[1] else self._ends[1]

    # --- operations; False ends the conversation ---

    def _carry(self, end: _End) -> bool:
        for _ in range(self._byte() % 32 + 1):
            chosen = end.session.next_frame()
            if chosen is None:
                break
            if not self._hear(self._other(end), bytes(chosen[1])):
                return False
        return True

    def _hear(self, end: _End, message: bytes) -> bool:
        try:
            end.session.receive(message, self._now)
        except RemoteProtocolError as error:
            assert not self._honest or error.code is GoAwayCode.FLOOD, f"an honest end: {error}"
            assert end.session.closing
            return False
        finally:
            end.take(end.session.events())
        return True

    def _open(self, end: _End) -> bool:
        end.session.open(_OPENS[self._ends.index(end)])
        return True

    def _send(self, end: _End) -> bool:
        stream, size = self._stream(end), _SIZES[self._byte() % len(_SIZES)]
        if (end.session.pending(stream) or 0) < 200_000:
            end.session.send(stream, bytes(size))
            end.sent[stream] = end.sent.get(stream, 0) + size
        return True

    def _read(self, end: _End) -> bool:
        unread = sorted(end.unread)
        if unread:
            stream = unread[self._byte() % len(unread)]
            size = min(end.unread[stream], _SIZES[self._byte() % len(_SIZES)])
            end.unread[stream] -= size
            end.session.consumed(stream, size, self._now)
        return True

    def _lose(self, end: _End) -> bool:
        """Frames go on a wire that breaks before they arrive: the connection is lost with them."""
        if not self._may_resume():
            return True
        for _ in range(self._byte()):
            if end.session.next_frame() is None:
                break
        return self._reconnect(end)

    def _reconnect(self, end: _End) -> bool:
        if self._may_resume():
            for each in self._ends:
                each.session.suspend()
            for each in self._ends:
                each.session.resume(self._now)
        return True

    def _may_resume(self) -> bool:
        return all(each.session.name for each in self._ends)

    def _finish(self, end: _End) -> bool:
        end.session.finish(self._stream(end))
        return True

    def _reset(self, end: _End) -> bool:
        stream = self._stream(end)
        end.broken.add(stream)
        end.session.reset(stream, ResetCode.CANCELLED, "fuzz")
        return True

    def _time(self, end: _End) -> bool:
        self._now += _SECONDS[self._byte() % len(_SECONDS)]
        for each in self._ends:
            each.session.tick(self._now)
            assert each.session.deadline() > 0
            each.take(each.session.events())
        return True

    def _go_away(self, end: _End) -> bool:
        end.session.go_away(GoAwayCode.SHUTDOWN, "fuzz", 1.0)
        return True

    def _stranger(self, end: _End) -> bool:
        """Somebody sends what the program says: whole frames, or any bytes."""
        self._honest = False
        kind, size = self._byte(), self._byte()
        payload = self._program[self._at : self._at + size]
        self._at += size
        if kind & 0x80:
            return self._hear(end, payload)
        stream = self._stream(end)
        kinds = list(Type)
        header = frames.HEADER.pack(kinds[kind % len(kinds)], self._byte() & 0x81, 1, stream)
        return self._hear(end, header + payload)

    # --- promises ---

    def _check(self) -> None:
        for end in self._ends:
            session = end.session
            assert len(session._control) <= MAX_CONTROL_FRAMES + 64
            assert len(session._streams) <= 2 * 256
            for stream in session._streams.values():
                assert 0 <= stream.send.credit <= MAX_CREDIT
                assert stream.receive.credit >= 0
                assert stream.pending_bytes == sum(map(len, stream.pending))
                promised = stream.receive.credit + end.unread.get(stream.id, 0)
                assert promised <= stream.receive.size <= MAX_WINDOW
        assert 0 <= self._budget.used <= self._budget.limit + REPLAY_BUDGET

    def _settle(self) -> bool:
        """Deliver and read everything; False when an end cut the other for flooding."""
        for _ in range(100_000):
            before = [end.session.bytes_sent for end in self._ends]
            for end in self._ends:
                for stream, size in list(end.unread.items()):
                    end.session.consumed(stream, size, self._now)
                end.unread.clear()
                while (chosen := end.session.next_frame()) is not None:
                    if not self._hear(self._other(end), bytes(chosen[1])):
                        return False
            self._check()
            if before == [end.session.bytes_sent for end in self._ends]:
                return True
        raise AssertionError("two sessions don't come to rest")

    def _compare(self) -> None:
        """Both sides know the same streams, and what arrived is what was sent."""
        one, other = self._ends
        assert set(one.session.stream_ids) == set(other.session.stream_ids)
        broken = one.broken | other.broken
        for sender, receiver in ((one, other), (other, one)):
            for stream, size in sender.sent.items():
                if stream not in broken:
                    assert receiver.received.get(stream, 0) == size, f"stream {stream}"
