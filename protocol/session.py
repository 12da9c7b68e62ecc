"""The multiplexer as a value machine: messages and `now` in, frames and events out.

One `Session` is one end of a tunnel. It knows no socket, no clock and no task: `receive(message,
now)` takes one WebSocket message, `next_frame()` gives the next one to send, `events()` what
happened, `deadline()` when `tick(now)` wants to be called. Every queue in it is bounded; what a
peer does beyond SPEC's bounds ends the stream or the session.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from enum import Enum

import msgspec

from protocol import frames, messages, opens
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
from protocol.opens import CLASS_OF, LARGE_WINDOW, OpenDecoder, OpenRefused
from protocol.scheduler import Scheduler
from protocol.streams import Happening, State, StreamState
from protocol.windows import TUNNEL_BUDGET, Budget, ReceiveWindow

VERSION = 1
PING_INTERVAL_S = 15.0
PING_SPREAD = 0.2
DEAD_AFTER_S = 35.0
HELLO_TIMEOUT_S = 10.0
MAX_CONTROL_FRAMES = 1024
DEFAULT_RTT_S = 0.05  # until the first PONG
RTTS_KEPT = 8  # two minutes of them
RTTS_ENOUGH = 4  # then the side that dialled leaves its PING out while the peer's come


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
        jitter: Callable[[], float] = lambda: 0.5,
    ) -> None:
        """Start a session and queue its HELLO.

        Args:
            side: who dialled.
            hello: what we say of ourselves; its `max_streams` is taken from `limits`.
            now: seconds on any monotonic clock; the same one in every call.
            accepts: the Struct or union of OPEN messages the peer may send; None: no streams.
            limits: what the peer may do.
            budget: receive budget of the process; the tunnel's own is nested in it.
            jitter: random numbers in [0, 1) that spread the pings.
        """
        self._side = side
        self._next_id = side.value
        self._peer_parity = 0 if side is Side.DIALLED else 1
        self._highest_peer_id = 0
        self._budget = Budget(TUNNEL_BUDGET, budget)
        self._jitter = jitter
        self._opens_accepted = OpenDecoder(accepts)
        self._streams: dict[int, StreamState] = {}
        self._peer_open = 0
        self._control: deque[bytes] = deque()
        self._scheduler = Scheduler()
        self._events: list[Event] = []
        self._guard = Guard(limits, now)
        self._overruns = 0
        self._started = self._last_received = now
        self._next_ping = now + PING_INTERVAL_S
        self._ping_sent: float | None = None
        self.peer: Hello | None = None
        self.rtt_s: float | None = None
        """The last round trip."""
        self._rtts: deque[float] = deque(maxlen=RTTS_KEPT)
        self.closing = False
        """A GOAWAY was sent or received: no new streams."""
        self.bytes_sent = self.bytes_received = 0
        self._control.append(
            frames.hello(msgspec.structs.replace(hello, max_streams=limits.max_streams))
        )

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
        if len(self._streams) - self._peer_open >= self.peer.max_streams:
            raise LocalProtocolError(f"{self.peer.max_streams} streams are open: the peer's limit")
        payload = opens.encode(message)
        stream_id, cls = self._next_id, CLASS_OF[type(message)]
        self._next_id += 2
        self._control.append(frames.open_stream(stream_id, cls, payload))
        self._add_stream(stream_id, cls)
        return stream_id

    def send(self, stream_id: int, data: bytes | memoryview) -> None:
        """Queue bytes on a stream; the caller bounds the queue with `pending`."""
        stream = self._own(stream_id)
        if stream.fin_queued:
            raise LocalProtocolError(f"stream {stream_id} was finished")
        stream.happens(Happening.SEND_DATA)
        if data:
            stream.pending.append(data)
            stream.pending_bytes += len(data)
            self._scheduler.add(stream)

    def finish(self, stream_id: int) -> None:
        """Queue FIN behind what waits on the stream; twice is once."""
        stream = self._own(stream_id)
        if not stream.fin_queued and stream.state in (State.OPEN, State.FINISHED_REMOTE):
            stream.fin_queued = True
            self._scheduler.add(stream)

    def reset(self, stream_id: int, code: ResetCode, reason: str = "") -> None:
        """End a stream now, dropping what waits; on a stream that is gone: nothing."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.happens(Happening.SEND_RESET)
            self._queue_control(frames.reset(stream_id, code, reason))
            self._forget(stream)

    def consumed(self, stream_id: int, size: int, now: float) -> None:
        """The application has read `size` bytes of the stream: credit goes back."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.state not in (State.OPEN, State.FINISHED_LOCAL):
            return
        credit = stream.receive.consumed(size, now, self._shortest_rtt_s())
        if credit:
            self._queue_control(frames.window(stream_id, credit))

    def pending(self, stream_id: int) -> int:
        """How many bytes wait to be sent on the stream; 0 when it is gone."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None else stream.pending_bytes

    def go_away(self, code: GoAwayCode, reason: str = "", retry_after_s: float = 0.0) -> None:
        """Queue GOAWAY: no new streams either way; the caller closes the transport."""
        if not self.closing:
            self.closing = True
            body = GoAway(code=code, reason=reason[:500], retry_after_s=retry_after_s)
            self._control.append(frames.goaway(body))

    @property
    def own_parity(self) -> int:
        """The remainder modulo 2 of the ids that this side gives."""
        return 1 - self._peer_parity

    def is_open(self, stream_id: int) -> bool:
        """Whether the stream is alive in at least one direction."""
        return stream_id in self._streams

    @property
    def stream_ids(self) -> list[int]:
        """The streams that are alive."""
        return list(self._streams)

    # --- what the transport does ---

    def next_frame(self) -> tuple[int, bytes] | None:
        """The next frame for the wire and its stream (0: control), or None when nothing can go."""
        if self._control:
            frame = self._control.popleft()
            self.bytes_sent += len(frame)
            return 0, frame
        if self.peer is None:
            return None
        chosen = self._scheduler.next()
        if chosen is None:
            return None
        stream, limit = chosen
        piece = stream.take(limit)
        fin = stream.fin_queued and not stream.pending_bytes
        frame = frames.data(stream.id, stream.cls, piece, fin=fin)
        self._scheduler.sent(stream, len(piece))
        if fin:
            stream.fin_queued = False
            stream.happens(Happening.SEND_FIN)
            if stream.state is State.CLOSED:
                self._forget(stream)
        self.bytes_sent += len(frame)
        return stream.id, frame

    def receive(self, message: bytes | memoryview, now: float) -> None:
        """Take one message from the wire; what happened is in `events()`.

        The message is copied: a view may be reused afterwards.

        Raises:
            RemoteProtocolError: the peer violated SPEC; a GOAWAY is queued, send it and close.
        """
        self._last_received = now
        self.bytes_received += len(message)
        try:
            frame = frames.parse(message)
            handler = _HANDLERS.get(frame.type)
            if handler is None:
                if not frame.flags & Flag.OPTIONAL:
                    raise RemoteProtocolError(f"unknown frame type {frame.type:#x}")
            elif self.peer is None and frame.type not in (Type.HELLO, Type.GOAWAY):
                raise RemoteProtocolError(f"{Type(frame.type).name} before HELLO")
            else:
                handler(self, frame, now)
        except RemoteProtocolError as error:
            self.go_away(error.code, error.reason)
            raise

    def events(self) -> list[Event]:
        """What happened since the last call, in order."""
        happened, self._events = self._events, []
        return happened

    def deadline(self) -> float:
        """When `tick` wants to be called next."""
        if self.peer is None:
            return self._started + HELLO_TIMEOUT_S
        return min(self._next_ping, self._last_received + DEAD_AFTER_S)

    def tick(self, now: float) -> None:
        """Let time pass: pings, and the death of a silent peer."""
        if self.peer is None:
            if now >= self._started + HELLO_TIMEOUT_S:
                self._events.append(PeerDead(f"no HELLO within {HELLO_TIMEOUT_S:.0f} s"))
                self._started = now
            return
        if now >= self._last_received + DEAD_AFTER_S:
            silence = now - self._last_received
            self._events.append(PeerDead(f"nothing received for {silence:.0f} s"))
            self._last_received = now
        if now >= self._next_ping:
            spread = 1 + PING_SPREAD * (2 * self._jitter() - 1)
            self._next_ping = now + PING_INTERVAL_S * spread
            self._ping_sent = now
            self._queue_control(frames.ping(struct.pack("!d", now)))

    # --- received frames ---

    def _on_hello(self, frame: Frame, now: float) -> None:
        if self.peer is not None:
            raise RemoteProtocolError("a second HELLO")
        hello = frames.parse_hello(frame)
        if hello.version < VERSION:
            raise RemoteProtocolError(f"version {hello.version}", GoAwayCode.VERSION)
        self.peer = hello
        self._next_ping = now  # learn the round-trip time at once
        self._events.append(PeerReady(hello))

    def _on_open(self, frame: Frame, now: float) -> None:
        stream_id = frame.stream
        if stream_id % 2 != self._peer_parity or stream_id <= self._highest_peer_id:
            raise RemoteProtocolError(f"OPEN of stream {stream_id} is out of order")
        self._highest_peer_id = stream_id
        if self.closing or not self._guard.may_open(self._peer_open, now):
            self._queue_control(frames.reset(stream_id, ResetCode.OVERLOADED, "too many streams"))
            return
        try:
            message = self._opens_accepted.decode(frame.payload)
        except OpenRefused as refusal:
            self._queue_control(frames.reset(stream_id, refusal.code, refusal.reason))
            return
        self._peer_open += 1
        self._add_stream(stream_id, CLASS_OF[type(message)], now)
        self._events.append(StreamOpened(stream_id, message))

    def _on_data(self, frame: Frame, now: float) -> None:
        stream = self._known(frame, now)
        if stream is None:
            return
        size = len(frame.payload)
        if size:
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
            stream.send.add(credit)
            self._scheduler.add(stream)

    def _on_reset(self, frame: Frame, now: float) -> None:
        code, reason = frames.parse_reset(frame)
        stream = self._known(frame, now)
        if stream is not None:
            stream.happens(Happening.RECEIVE_RESET)
            self._forget(stream)
            self._events.append(StreamWasReset(stream.id, code, reason))

    def _on_ping(self, frame: Frame, now: float) -> None:
        self._guard.ping(now)
        self._queue_control(frames.pong(frames.parse_ping(frame)))
        if self._side is Side.DIALLED and len(self._rtts) >= RTTS_ENOUGH:
            # It lives, and says so again: half the pings of ten thousand idle agents are enough.
            self._next_ping = max(self._next_ping, now + PING_INTERVAL_S * (1 + PING_SPREAD))

    def _on_pong(self, frame: Frame, now: float) -> None:
        (sent,) = struct.unpack("!d", frames.parse_ping(frame))
        if self._ping_sent is not None and sent == self._ping_sent:
            self._ping_sent = None
            self.rtt_s = max(now - sent, 0.0)
            self._rtts.append(self.rtt_s)
            self._events.append(RoundTrip(self.rtt_s))

    def _on_goaway(self, frame: Frame, now: float) -> None:
        code, body = frames.parse_goaway(frame)
        self.closing = True
        self._events.append(PeerGoesAway(code, body.reason, body.retry_after_s))

    # --- inside ---

    def _shortest_rtt_s(self) -> float:
        return min(self._rtts, default=DEFAULT_RTT_S)

    def _own(self, stream_id: int) -> StreamState:
        try:
            return self._streams[stream_id]
        except KeyError:
            raise LocalProtocolError(f"stream {stream_id} is not open") from None

    def _known(self, frame: Frame, now: float) -> StreamState | None:
        """The stream of a frame; None when it is closed: frames may have crossed our RESET."""
        stream = self._streams.get(frame.stream)
        if stream is not None:
            return stream
        ours = frame.stream % 2 != self._peer_parity
        newest = self._next_id - 2 if ours else self._highest_peer_id
        if not 0 < frame.stream <= newest:
            raise RemoteProtocolError(f"a frame on stream {frame.stream}, which was never opened")
        self._guard.stray(now)
        return None

    def _add_stream(self, stream_id: int, cls: Class, now: float | None = None) -> None:
        window = ReceiveWindow(self._budget, self._last_received if now is None else now)
        self._streams[stream_id] = StreamState(stream_id, cls, window)
        extra = LARGE_WINDOW.get(cls, 0) - window.size
        if extra > 0 and window.grow(extra):
            credit = window.consumed(0, self._last_received, 0.0)
            if credit:
                self._queue_control(frames.window(stream_id, credit))

    def _forget(self, stream: StreamState) -> None:
        del self._streams[stream.id]
        self._peer_open -= stream.id % 2 == self._peer_parity
        stream.pending.clear()
        stream.pending_bytes = 0
        stream.receive.close()
        self._scheduler.remove(stream)

    def _overrun(self, stream: StreamState) -> None:
        self._overruns += 1
        if self._overruns > 1:
            raise RemoteProtocolError("data beyond the credit, twice", GoAwayCode.FLOW_CONTROL)
        reason = "data beyond the credit"
        self._queue_control(frames.reset(stream.id, ResetCode.FLOW_CONTROL, reason))
        self._forget(stream)
        self._events.append(StreamWasReset(stream.id, ResetCode.FLOW_CONTROL, reason))

    def _queue_control(self, frame: bytes) -> None:
        """Queue a control frame; a peer that makes us queue and does not read is cut."""
        if len(self._control) >= MAX_CONTROL_FRAMES:
            raise RemoteProtocolError("1024 control frames wait for the peer", GoAwayCode.FLOOD)
        self._control.append(frame)


_HANDLERS: dict[int, Callable[[Session, Frame, float], None]] = {
    Type.HELLO: Session._on_hello,
    Type.OPEN: Session._on_open,
    Type.DATA: Session._on_data,
    Type.WINDOW: Session._on_window,
    Type.RESET: Session._on_reset,
    Type.PING: Session._on_ping,
    Type.PONG: Session._on_pong,
    Type.GOAWAY: Session._on_goaway,
}
