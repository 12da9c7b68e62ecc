"""The multiplexer as a value machine: messages and `now` in, frames and events out.

One `Session` is one end of a tunnel. It knows no socket, no clock and no task: `receive(message,
now)` takes one WebSocket message, `next_frame()` gives the next one to send, `events()` what
happened, `deadline()` when `tick(now)` wants to be called. Every queue in it is bounded; what a
peer does beyond SPEC's bounds ends the stream or the session.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum

import msgspec

from protocol import frames, messages, opens
from protocol.continuity import Continuity
from protocol.counts import Counts, Flood, Refusal
from protocol.errors import (
    GoAwayCode,
    LocalProtocolError,
    RemoteProtocolError,
    ResetCode,
)
from protocol.events import (
    DataReceived,
    Event,
    PeerDead,
    PeerGoesAway,
    PeerReady,
    RoundTrip,
    StreamFinished,
    StreamOpened,
    StreamWasReset,
)
from protocol.frames import FIN, Class, Flag, Frame, GoAway, Hello, Type
from protocol.guard import DEFAULT_LIMITS, Guard, Limits
from protocol.holdings import Holding
from protocol.liveness import Liveness
from protocol.opens import CLASS_OF, LARGE_WINDOW, OpenDecoder, OpenRefused
from protocol.replay import Sent
from protocol.scheduler import Scheduler
from protocol.streams import Happening, State, StreamState
from protocol.table import StreamTable
from protocol.windows import TUNNEL_BUDGET, Budget, ReceiveWindow

VERSION = 1
MAX_CONTROL_FRAMES = 1024

SHARED_S = 0.5  # a tunnel is shared for so long after its DATA changed from stream to stream

_OPEN = State.OPEN  # plain names where every frame passes: enums cost more than the frame
_RECEIVING = (State.OPEN, State.FINISHED_LOCAL)


class Side(Enum):
    """Who dialled: the dialling side opens odd stream ids, the accepting side even ones."""

    DIALLED = 1
    ACCEPTED = 2


class Session:
    """One end of a tunnel. See the module's text for how it is driven."""

    def __init__(
        self,
        side: Side,
        hello: Hello,
        now: float,
        *,
        accepts: object = None,
        limits: Limits = DEFAULT_LIMITS,
        budget: Budget | None = None,
        counts: Counts | None = None,
        jitter: Callable[[], float] = lambda: 0.5,
        name: bytes | None = None,
    ) -> None:
        """Start a session and queue its HELLO.

        Args:
            side: who dialled.
            hello: what we say of ourselves; its `max_streams` is taken from `limits`.
            now: seconds on any monotonic clock; the same one in every call.
            accepts: the Struct or union of OPEN messages the peer may send; None: no streams.
            limits: what the peer may do.
            budget: receive budget of the process; the tunnel's own is nested in it.
            counts: of all sessions of this kind in the process; until `end`.
            jitter: random numbers in [0, 1) that spread the pings.
            name: what the peer resumes the session by, unguessable (accepting side); empty: as the
                accepting side names it (dialling side); None: the session ends with its connection.
        """
        hello = msgspec.structs.replace(hello, max_streams=limits.max_streams)
        self._continuity = Continuity(hello, name, budget)
        self._liveness = Liveness(now, jitter, dialled=side is Side.DIALLED)
        self._budget = Budget(TUNNEL_BUDGET, budget)
        self.holding = Holding(None if budget is None else budget.holdings)
        """What waits unread; counted by who keeps it."""
        self._counts = Counts() if counts is None else counts
        self._counts.began(self)
        self._opens_accepted = OpenDecoder(accepts)
        self._streams = StreamTable(first_id=side.value)
        self._greetings: deque[bytes] = deque([self._continuity.greeting()])
        self._greeted = False
        self._control: deque[tuple[int, bytes]] = deque()
        self._scheduler = Scheduler()
        self._events: list[Event] = []
        self._guard = Guard(limits, now, self._counts)
        self._newest_data = 0  # the stream of the last DATA that came in
        self._shared_at = now  # when that was another one
        self._overruns = 0
        self._failed = False
        self.peer: Hello | None = None
        self.closing = False
        """A GOAWAY was sent or received: no new streams."""
        self.bytes_sent = self.bytes_received = 0

    # --- what the application does ---

    def open(self, message: messages.Open) -> int:
        """Open a stream and return its id.

        Raises:
            LocalProtocolError: before the peer's HELLO, while closing, too many streams, or too
                large.
        """
        if self.peer is None:
            raise LocalProtocolError("the peer has not said HELLO yet")
        if self.closing:
            raise LocalProtocolError("the session is closing")
        if self._streams.own_count >= self.peer.max_streams:
            raise LocalProtocolError(f"{self.peer.max_streams} streams are open: the peer's limit")
        if len(self._control) >= MAX_CONTROL_FRAMES:
            raise LocalProtocolError("the peer does not read: its control frames wait")
        payload = opens.encode(message)
        stream_id, cls = self._streams.give_id(), CLASS_OF[type(message)]
        self._control.append((stream_id, frames.open_stream(stream_id, cls, payload)))
        self._add_stream(stream_id, cls)
        return stream_id

    def send(self, stream_id: int, data: frames.Payload) -> int:
        """Queue bytes on a stream; return how many wait, which the caller bounds."""
        stream = self._streams.to_send_on(stream_id)
        if stream.fin_queued:
            raise LocalProtocolError(f"stream {stream_id} was finished")
        if stream.state is not _OPEN:
            stream.happens(Happening.SEND_DATA)
        if size := frames.payload_size(data):
            stream.pending.append(data)
            stream.pending_bytes += size
            self._scheduler.add(stream)
        return stream.pending_bytes

    def finish(self, stream_id: int) -> None:
        """Queue FIN behind what waits on the stream; twice is once."""
        stream = self._streams.to_send_on(stream_id)
        if not stream.fin_queued and stream.state in (State.OPEN, State.FINISHED_REMOTE):
            stream.fin_queued = True
            self._scheduler.add(stream)

    def reset(self, stream_id: int, code: ResetCode, reason: str = "") -> None:
        """End a stream now, dropping what waits; on a stream that is gone: nothing."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.happens(Happening.SEND_RESET)
            self._guard.reset()
            self._forget(stream)
            self._send_reset(stream_id, code, reason)

    def consumed(self, stream_id: int, size: int, now: float) -> int:
        """The application has read `size` bytes of the stream; return the credit that goes back."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.state not in _RECEIVING:
            return 0
        alone = now - self._shared_at > SHARED_S
        rtt_s = self._liveness.shortest_rtt_s
        credit = stream.receive.consumed(size, now, rtt_s, alone=alone)
        if credit:
            self._queue_control(frames.window(stream_id, credit), stream_id)
        return credit

    def pending(self, stream_id: int) -> int | None:
        """How many bytes wait to be sent on the stream; None when it is gone."""
        stream = self._streams.get(stream_id)
        return None if stream is None else stream.pending_bytes

    def go_away(self, code: GoAwayCode, reason: str = "", retry_after_s: float = 0.0) -> None:
        """Queue GOAWAY: no new streams either way; the caller closes the transport."""
        if not self.closing:
            self.closing = True
            self._counts.goaways_sent[code] += 1
            body = GoAway(code=code, reason=reason[:500], retry_after_s=retry_after_s)
            frame = frames.goaway(body)
            if self._greeted:
                self._control.append((0, frame))
            else:
                self._greetings.append(frame)

    def end(self) -> None:
        """The session is over: budgets are given back; twice is once."""
        self.closing = True
        self._counts.ended(self)
        for stream in list(self._streams.values()):
            self._forget(stream)
        self._continuity.end()
        self._control.clear()

    @property
    def rtt_s(self) -> float | None:
        """The last round trip."""
        return self._liveness.rtt_s

    @property
    def own_parity(self) -> int:
        """The remainder modulo 2 of the ids that this side gives."""
        return self._streams.own_parity

    def is_open(self, stream_id: int) -> bool:
        """Whether the stream is alive in at least one direction."""
        return stream_id in self._streams

    @property
    def stream_ids(self) -> list[int]:
        """The streams that are alive."""
        return list(self._streams)

    @property
    def stream_count(self) -> int:
        """How many streams are alive."""
        return len(self._streams)

    @property
    def stalled_count(self) -> int:
        """How many streams have data and no credit."""
        return sum(stream.is_stalled for stream in self._streams.values())

    # --- when the connection is lost ---

    @property
    def name(self) -> bytes:
        """What the session is resumed by; empty when it ends with its connection."""
        return b"" if self.closing else self._continuity.name(self.peer)

    @property
    def replay_bytes(self) -> int:
        """What is kept of what was sent, until the peer has it."""
        return self._continuity.kept_bytes

    def suspend(self) -> None:
        """The connection is gone: keep the streams, and what the peer may not have received."""
        self._continuity.wait(entry for entry in self._control if entry[0])
        self._control.clear()
        self._greeted = False

    def resume(self, now: float) -> None:
        """There is another connection: queue its HELLO; nothing else is sent before the peer's."""
        self._liveness.connected(now)
        self._greetings = deque([self._continuity.greeting()])

    # --- what the transport does ---

    def next_frame(self) -> tuple[int, bytes | bytearray] | None:
        """The next frame for the wire and its stream (0: control), or None when nothing can go."""
        if self._greetings:
            return 0, self._goes_out(0, self._greetings.popleft())
        if not self._greeted:
            return None
        if (due := self._continuity.due()) is not None:
            return 0, self._goes_out(*due)
        if self._control:
            return 0, self._goes_out(*self._control.popleft())
        chosen = self._scheduler.next()
        if chosen is None:
            return None
        stream, limit = chosen
        piece, size = stream.take(limit)
        fin = stream.fin_queued and not stream.pending_bytes
        frame = frames.data(stream.id, stream.cls, piece, fin=fin)
        self._scheduler.sent(stream, size)
        if fin:
            stream.fin_queued = False
            stream.happens(Happening.SEND_FIN)
            if stream.state is State.CLOSED:
                self._forget(stream)
        return stream.id, self._goes_out(stream.id, frame)

    def receive(self, message: frames.Bytes, now: float) -> None:
        """Take one message from the wire; what happened is in `events()`.

        Of a view nothing is copied: the data of the events is part of it, so take `events()`
        before it is reused.

        Raises:
            RemoteProtocolError: the peer violated SPEC; a GOAWAY is queued, send it and close.
        """
        self._liveness.heard_at = now
        self.bytes_received += len(message)
        try:
            frame = frames.parse(message)
            handler = _HANDLERS.get(frame.type)
            if handler is None:
                if not frame.flags & Flag.OPTIONAL:
                    raise RemoteProtocolError(f"unknown frame type {frame.type:#x}")
            elif not self._greeted and frame.type not in (Type.HELLO, Type.GOAWAY):
                raise RemoteProtocolError(f"{Type(frame.type).name} before HELLO")
            else:
                handler(self, frame, now)
            if frame.stream:
                self._continuity.received(len(message))
        except RemoteProtocolError as error:
            self._fail(error)
            raise

    def noise(self, now: float) -> None:
        """Count something of the carrier's own, which achieves nothing here.

        Raises:
            RemoteProtocolError: FLOOD.
        """
        try:
            self._guard.stray(now)
        except RemoteProtocolError as error:
            self._fail(error)
            raise

    def events(self) -> list[Event]:
        """What happened since the last call, in order."""
        happened, self._events = self._events, []
        return happened

    def deadline(self) -> float:
        """When `tick` wants to be called next."""
        return self._liveness.deadline()

    def tick(self, now: float) -> None:
        """Let time pass: pings, and the death of a silent peer."""
        if (death := self._liveness.death(now)) is not None:
            kind, reason = death
            self._counts.deaths[kind] += 1
            self._events.append(PeerDead(reason))
        if (opaque := self._liveness.ping(now)) is not None:
            self._continuity.owe_ack()
            self._queue_control(frames.ping(opaque))

    # --- received frames ---

    def _on_hello(self, frame: Frame, now: float) -> None:
        if self._greeted:
            raise RemoteProtocolError("a second HELLO")
        hello = frames.parse_hello(frame)
        if hello.version < VERSION:
            raise RemoteProtocolError(f"version {hello.version}", GoAwayCode.VERSION)
        if self.peer is None:
            self._continuity.agree(hello)
        else:
            self._resume_after(hello.received)
        self.peer = hello
        self._greeted = True
        self._liveness.greeted(now)
        self._events.append(PeerReady(hello))

    def _resume_after(self, received: int) -> None:
        """Go on with a session whose peer has so many frames of ours."""
        self._continuity.wait(self._control)
        self._control.clear()
        resumption = self._continuity.resume(received)
        self._counts.resumptions += 1
        self._guard.resumed()
        reason = "more was under way than is kept for a lost connection"
        for stream_id in resumption.told:
            self._send_reset(stream_id, ResetCode.LOST, reason)
        for stream_id in resumption.broken & self._streams.keys():
            self._forget(self._streams[stream_id])
            self._events.append(StreamWasReset(stream_id, ResetCode.LOST, reason))

    def _on_ack(self, frame: Frame, now: float) -> None:
        count = frames.parse_ack(frame)
        if not self._continuity.acknowledged(count):
            self._guard.stray(now)

    def _on_open(self, frame: Frame, now: float) -> None:
        stream_id = frame.stream
        self._streams.take_id(stream_id)
        refusal = self._refusal(now)
        if refusal is not None:
            self._counts.opens_refused[refusal] += 1
            self._guard.stray(now)
            self._send_reset(stream_id, ResetCode.OVERLOADED, "too many streams")
            return
        try:
            message = self._opens_accepted.decode(frame.payload)
        except OpenRefused as refused:
            self._counts.opens_refused[refused.refusal] += 1
            self._send_reset(stream_id, refused.code, refused.reason)
            return
        self._add_stream(stream_id, CLASS_OF[type(message)], now)
        self._events.append(StreamOpened(stream_id, message))

    def _on_data(self, frame: Frame, now: float) -> None:
        stream = self._known(frame, now)
        if stream is None:
            return
        size = len(frame.payload)
        if frame.stream != self._newest_data:
            self._newest_data, self._shared_at = frame.stream, now
        if size:
            if stream.state is not _OPEN:
                stream.happens(Happening.RECEIVE_DATA)
            if not stream.receive.received(size):
                self._overrun(stream)
                return
            self._events.append(DataReceived(stream.id, frame.payload))
        elif not frame.flags & FIN:
            self._guard.stray(now)
        if frame.flags & FIN:
            stream.happens(Happening.RECEIVE_FIN)
            self._events.append(StreamFinished(stream.id))
            if stream.state is State.CLOSED:
                self._forget(stream)

    def _on_window(self, frame: Frame, now: float) -> None:
        credit = frames.parse_window(frame)
        stream = self._known(frame, now)
        if stream is not None:
            if stream.was_granted:
                self._guard.window(now, self.bytes_sent)
            stream.was_granted = True
            self._counts.credit_stalls += stream.is_stalled
            stream.send.add(credit)
            self._scheduler.add(stream)

    def _on_reset(self, frame: Frame, now: float) -> None:
        code, reason = frames.parse_reset(frame)
        stream = self._known(frame, now)
        if stream is not None:
            stream.happens(Happening.RECEIVE_RESET)
            self._counts.resets_received[code] += 1
            self._forget(stream)
            self._events.append(StreamWasReset(stream.id, code, reason))

    def _on_ping(self, frame: Frame, now: float) -> None:
        self._guard.ping(now)
        self._queue_control(frames.pong(frames.parse_ping(frame)))
        if self._liveness.pinged(now):
            self._continuity.owe_ack()

    def _on_pong(self, frame: Frame, now: float) -> None:
        opaque = frames.parse_ping(frame)
        if self._liveness.pong(opaque, now) and (rtt_s := self.rtt_s) is not None:
            self._counts.rtt_s.observe(rtt_s)
            self._events.append(RoundTrip(rtt_s))
        else:
            self._guard.stray(now)

    def _on_goaway(self, frame: Frame, now: float) -> None:
        code, body = frames.parse_goaway(frame)
        self.closing = True
        self._counts.goaways_received[code] += 1
        self._events.append(PeerGoesAway(code, body.reason, body.retry_after_s))

    # --- inside ---

    def _refusal(self, now: float) -> Refusal | None:
        if self.closing:
            return Refusal.CLOSING
        if self.holding.must_not_open:
            return Refusal.OVERLOADED
        return self._guard.refusal(self._streams.peer_count, now)

    def _known(self, frame: Frame, now: float) -> StreamState | None:
        """The stream of a frame; None when it is closed: frames may have crossed our RESET."""
        stream = self._streams.get(frame.stream)
        if stream is None:
            self._streams.check_ended(frame.stream)
            self._guard.stray(now)
        return stream

    def _add_stream(self, stream_id: int, cls: Class, now: float | None = None) -> None:
        window = ReceiveWindow(self._budget, self._liveness.heard_at if now is None else now)
        self._streams.add(StreamState(stream_id, cls, window))
        if credit := window.begin(LARGE_WINDOW.get(cls, 0)):
            self._queue_control(frames.window(stream_id, credit), stream_id)

    def _forget(self, stream: StreamState) -> None:
        self._streams.remove(stream)
        stream.pending.clear()
        stream.pending_bytes = 0
        stream.receive.close()
        self._scheduler.remove(stream)

    def _overrun(self, stream: StreamState) -> None:
        self._overruns += 1
        self._counts.overruns += 1
        if self._overruns > 1:
            raise RemoteProtocolError("data beyond the credit, twice", GoAwayCode.FLOW_CONTROL)
        reason = "data beyond the credit"
        self._forget(stream)
        self._send_reset(stream.id, ResetCode.FLOW_CONTROL, reason)
        self._events.append(StreamWasReset(stream.id, ResetCode.FLOW_CONTROL, reason))

    def _send_reset(self, stream_id: int, code: ResetCode, reason: str) -> None:
        self._counts.resets_sent[code] += 1
        self._queue_control(frames.reset(stream_id, code, reason), stream_id)

    def _fail(self, error: RemoteProtocolError) -> None:
        """The peer violated SPEC: count it and queue GOAWAY, once, before all that waits."""
        if not self._failed:
            self._failed = True
            self._continuity.end()
            self._control.clear()
            self._counts.violations[error.code] += 1
            self.go_away(error.code, error.reason)

    def _queue_control(self, frame: bytes, stream_id: int = 0) -> None:
        """Queue a control frame; a peer that makes us queue and does not read is cut.

        Without a connection it makes us queue nothing, and our own streams are bounded by `open`.
        """
        if self._greeted and len(self._control) >= MAX_CONTROL_FRAMES:
            self._counts.floods[Flood.UNREAD] += 1
            error = RemoteProtocolError("1024 control frames wait for the peer", GoAwayCode.FLOOD)
            self._fail(error)
            raise error
        self._control.append((stream_id, frame))

    def _goes_out(self, stream_id: int, frame: Sent) -> Sent:
        self.bytes_sent += len(frame)
        if stream_id:
            self._continuity.sent(stream_id, frame)
        return frame


_HANDLERS: dict[int, Callable[[Session, Frame, float], None]] = {
    Type.HELLO: Session._on_hello,
    Type.OPEN: Session._on_open,
    Type.DATA: Session._on_data,
    Type.WINDOW: Session._on_window,
    Type.RESET: Session._on_reset,
    Type.PING: Session._on_ping,
    Type.PONG: Session._on_pong,
    Type.GOAWAY: Session._on_goaway,
    Type.ACK: Session._on_ack,
}
