"""A session joined to a transport: frames out as it takes them, events to streams and handlers.

`run()` is the tunnel's lifetime and owns every task of it. The transport calls `received`,
`writable` and `lost`; nothing here awaits a write while reading, so two ends that both push can
never block each other.

A tunnel that both ends agreed to resume outlives its transport: for `RESUME_WITHIN_S` its streams
wait for another one to be attached, and then go on where they were.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Callable
from typing import Protocol, assert_never

from protocol import events as ev
from protocol.aio.connectedness import Connectedness
from protocol.aio.serving import Handler, Serving
from protocol.aio.stream import Stream
from protocol.counts import Counts, Death
from protocol.errors import (
    GoAwayCode,
    LocalProtocolError,
    RemoteProtocolError,
    ResetCode,
    StreamReset,
    TunnelClosed,
)
from protocol.frames import Bytes, Hello, Payload
from protocol.guard import DEFAULT_LIMITS, Limits
from protocol.holdings import Holding
from protocol.messages import Open
from protocol.session import Session, Side
from protocol.windows import Budget

logger = logging.getLogger(__name__)

TRANSPORT_HIGH = 16 * 1024  # bytes that wait below the scheduler, plus one frame and TLS's own
CLOSE_TIMEOUT_S = 2.0
RESUME_WITHIN_S = 60.0
UNREAD_TIMEOUT_S = 35.0  # a peer that takes no byte of what waits for so long is gone


class Transport(Protocol):
    """What carries a tunnel's messages: a WebSocket, or memory."""

    def send(self, message: bytes | bytearray) -> None:
        """Take one message, leave it as it is; never blocks, buffers what the socket can't take."""

    def buffered(self) -> int:
        """Bytes that `send` took and the kernel has not."""

    def close(self) -> None:
        """Send what is buffered, then close; `Tunnel.lost` follows."""

    def abort(self) -> None:
        """Close now."""


class Tunnel:
    """One end of a tunnel."""

    def __init__(
        self,
        side: Side,
        hello: Hello,
        handler: Handler | None = None,
        *,
        accepts: object = None,
        limits: Limits = DEFAULT_LIMITS,
        budget: Budget | None = None,
        counts: Counts | None = None,
        name: str = "",
        resume: bytes | None = None,
    ) -> None:
        """Make an end that is not joined to a transport yet.

        Args:
            side: who dialled.
            hello: what we say of ourselves.
            handler: called in a task of its own for each stream that the peer opens.
            accepts: the Structs of `protocol.messages` that the peer may open.
            limits: what the peer may do.
            budget: the process's receive budget.
            counts: what all tunnels of this kind count.
            name: of the peer, for the log.
            resume: what the session is resumed by: 32 random bytes on the accepting side, empty on
                the dialling one; None: the tunnel ends with its transport.
        """
        self.loop = asyncio.get_running_loop()
        self.name = name
        self._session = Session(
            side,
            hello,
            time.monotonic(),
            accepts=accepts,
            limits=limits,
            budget=budget,
            counts=counts,
            jitter=random.random,
            name=resume,
        )
        self._counts = counts
        self._session.holding.shed = self._shed
        self._streams: dict[int, Stream] = {}
        self._transport: Transport | None = None
        self._taken = -math.inf  # bytes that the transport has passed on, when that last grew
        self._taken_at = 0.0
        self._serving = Serving(handler, 2 * limits.max_streams, name)
        self._timer: asyncio.TimerHandle | None = None
        self._flush_scheduled = False
        self._connectedness = Connectedness()
        self._closed: asyncio.Future[TunnelClosed] = self.loop.create_future()
        self.goaway: ev.PeerGoesAway | None = None
        """What the peer said when it ended the session."""

    # --- for whoever uses the tunnel ---

    @property
    def peer(self) -> Hello | None:
        """The peer's HELLO, once it came in."""
        return self._session.peer

    @property
    def rtt_s(self) -> float | None:
        """The last measured round-trip time."""
        return self._session.rtt_s

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes sent and received, headers of the frames included."""
        return self._session.bytes_sent, self._session.bytes_received

    @property
    def stream_count(self) -> int:
        """How many streams are alive."""
        return len(self._streams)

    @property
    def closed(self) -> bool:
        """The tunnel is over, and all its streams."""
        return self._closed.done()

    @property
    def is_connected(self) -> bool:
        """There is a transport, and the peer said HELLO on it."""
        return self._connectedness.is_up

    @property
    def resume_by(self) -> bytes:
        """What the session is resumed by; empty when it can't be."""
        return b"" if self.closed else self._session.name

    async def connected(self) -> bool:
        """Wait until the peer says HELLO on a transport; False: the tunnel is over."""
        await self._connectedness.wait_up()
        return not self.closed

    async def greeted(self) -> bool:
        """Wait until the peer says HELLO on the transport that is attached; False: it is gone."""
        return await self._connectedness.wait_greeted()

    async def disconnected(self) -> str:
        """Wait until the transport is gone; returns why. The tunnel may go on with another."""
        await self._connectedness.wait_down()
        return self._connectedness.lost_because

    async def ready(self) -> Hello:
        """Wait for the peer's HELLO.

        Raises:
            TunnelClosed: the tunnel ended first.
        """
        if not await self.connected():
            raise self._closed.result()
        assert self.peer is not None, "it is connected"
        return self.peer

    async def wait_closed(self) -> TunnelClosed:
        """Wait for the end of the tunnel; returns why."""
        return await asyncio.shield(self._closed)

    async def open(self, message: Open) -> Stream:
        """Open a stream.

        Raises:
            TunnelClosed: the tunnel is closed or closing.
            LocalProtocolError: the peer's limit of streams is reached, or the message is too large.
        """
        if self.peer is None:
            await self.ready()
        if self.closed or self._session.closing:
            raise TunnelClosed("the tunnel is closing")
        stream_id = self._session.open(message)
        stream = self._streams[stream_id] = Stream(self, stream_id, message)
        self._flush()
        return stream

    async def run(self) -> TunnelClosed:
        """Serve streams until the tunnel ends; returns why. Cancelling it closes the tunnel."""
        try:
            if self._transport is None and self._timer is None:
                self._await_transport("it never had a connection")
            async with asyncio.TaskGroup() as tasks:
                with self._serving.within(tasks):
                    for stream in list(self._streams.values()):
                        if stream.id % 2 != self._session.own_parity:
                            self._serving.serve(stream)
                    reason = await self.wait_closed()
                await self._serving.dismiss()
            return reason
        finally:
            self.abort("cancelled")

    async def close(
        self, code: GoAwayCode = GoAwayCode.NORMAL, reason: str = "", retry_after_s: float = 0.0
    ) -> None:
        """Say GOAWAY, send what can be sent within 2 s, close for good."""
        if self.closed or self._transport is None:
            self.abort(reason)
            return
        self._session.go_away(code, reason, retry_after_s)
        self._flush()
        self._transport.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.shield(self._closed)
        except TimeoutError:
            self.abort(reason)

    def abort(self, reason: str) -> None:
        """Close for good, now, without a word to the peer."""
        transport = self._transport
        self._close(reason or "closed")
        if transport is not None:
            transport.abort()

    # --- for streams ---

    @property
    def holding(self) -> Holding:
        """What waits unread in this tunnel."""
        return self._session.holding

    def send(self, stream_id: int, data: Payload) -> int:
        """Queue bytes; return how many of the stream wait now."""
        self._session.send(stream_id, data)
        self._flush()
        return self._session.pending(stream_id) or 0

    def finish(self, stream_id: int) -> None:
        """Queue FIN."""
        if stream_id in self._streams:
            try:
                self._session.finish(stream_id)
            except LocalProtocolError:
                return
            self._flush()

    def reset(self, stream_id: int, code: ResetCode, reason: str) -> None:
        """Reset a stream from this side."""
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            try:
                self._session.reset(stream_id, code, reason)
            except RemoteProtocolError as error:
                self._violated(error)
            stream.failed(StreamReset(code, reason))
            self._flush()

    def consumed(self, stream_id: int, size: int) -> None:
        """The stream's reader took `size` bytes; credit goes out when this callback is done.

        Later, because the bytes may have gone to another tunnel: two that feed each other would
        flush inside each other without end.
        """
        try:
            credit = self._session.consumed(stream_id, size, time.monotonic())
        except RemoteProtocolError as error:
            self._violated(error)
            return
        if credit and not self._flush_scheduled:
            self._flush_scheduled = True
            self.loop.call_soon(self._flush_later)

    # --- for the transport ---

    def attach(self, transport: Transport) -> None:
        """A transport is open: start talking, or go on where the last one was lost."""
        if self._transport is not None:  # half-open: the peer knew before us
            self._drop_transport("the peer came back on another connection")
        if self.closed:
            transport.abort()
            return
        self._connectedness.begins()
        if self._session.peer is not None:
            self._session.resume(time.monotonic())
        self._transport = transport
        self._taken, self._taken_at = -math.inf, time.monotonic()
        self._schedule_tick()
        self._flush()

    def carried_by(self, transport: Transport) -> bool:
        """Whether `transport` is still the tunnel's."""
        return self._transport is transport

    def received(self, message: Bytes) -> None:
        """One message came in; a view is read only during this call."""
        if self._closed.done():
            return
        try:
            self._session.receive(message, time.monotonic())
        except RemoteProtocolError as error:
            self._violated(error)
        self._dispatch()
        self._flush()

    def noise(self) -> None:
        """Something came in that is no frame, such as a ping of the carrier: it counts, no more."""
        if not self.closed:
            try:
                self._session.noise(time.monotonic())
            except RemoteProtocolError as error:
                self._violated(error)

    def writable(self) -> None:
        """The transport's buffer has room again."""
        self._flush()

    def lost(self, transport: Transport, reason: str = "the connection was lost") -> None:
        """The transport is gone; the streams wait for another when the peer agreed to that."""
        if self._transport is transport:
            self._transport = None
            self._suspend(reason)

    # --- inside ---

    def _violated(self, error: RemoteProtocolError) -> None:
        """End the tunnel: the peer broke the protocol."""
        logger.warning("%s: protocol violation: %s", self.name, error.reason)
        goaway = self._session.next_frame()
        if goaway is not None and self._transport is not None:
            self._transport.send(goaway[1])  # also when much waits for a peer that does not read
        self._end(f"protocol violation: {error.reason}")

    def _end(self, reason: str) -> None:
        """Close after what is queued; streams learn it at once."""
        transport = self._transport
        self._close(reason)
        if transport is not None:
            transport.close()
            self.loop.call_later(CLOSE_TIMEOUT_S, transport.abort)

    def _drop_transport(self, reason: str) -> None:
        """Give up a transport that does not work any more."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
            self._suspend(reason)

    def _suspend(self, reason: str) -> None:
        """Without a transport: wait for another one, or end."""
        if not self.resume_by:
            self._close(reason)
        elif not self.closed:
            self._session.suspend()
            self._connectedness.lost(reason)
            self._await_transport(reason)

    def _await_transport(self, reason: str) -> None:
        """End for `reason` unless there is a transport in time."""
        self._set_timer(RESUME_WITHIN_S, lambda: self._close(reason))

    def _close(self, reason: str) -> None:
        """The tunnel is over: tell whoever waits, give everything back."""
        if self._closed.done():
            return
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self.goaway is not None and self.goaway.reason:
            reason = self.goaway.reason
        error = TunnelClosed(reason)
        self._closed.set_result(error)
        self._connectedness.over(reason)
        for stream in self._streams.values():
            stream.failed(error)
        self._streams.clear()
        self._session.end()

    def _dispatch(self) -> None:
        for event in self._session.events():
            match event:
                case ev.DataReceived(stream_id, data):
                    if (stream := self._streams.get(stream_id)) is not None:
                        stream.received(data)
                case ev.StreamOpened(stream_id, message):
                    stream = self._streams[stream_id] = Stream(self, stream_id, message)
                    self._serving.serve(stream)
                case ev.StreamFinished(stream_id):
                    if (stream := self._streams.get(stream_id)) is not None:
                        stream.finished()
                        self._forget_if_closed(stream_id)
                case ev.StreamWasReset(stream_id, code, reason):
                    if (stream := self._streams.pop(stream_id, None)) is not None:
                        stream.failed(StreamReset(code, reason))
                case ev.PeerReady():
                    self._schedule_tick()
                    self._connectedness.greeted()
                case ev.PeerGoesAway():
                    self.goaway = event
                    logger.info("%s goes away: %s", self.name, event.reason or event.code.name)
                case ev.PeerDead(reason):
                    self._drop_transport(reason)
                case ev.RoundTrip():
                    self._schedule_tick()
                case _:
                    assert_never(event)

    def _flush(self) -> None:
        """Hand frames to the transport while it takes them."""
        transport, session = self._transport, self._session
        if transport is None or self._closed.done():
            return
        while transport.buffered() < TRANSPORT_HIGH:
            chosen = session.next_frame()
            if chosen is None:
                return
            stream_id, frame = chosen
            transport.send(frame)
            if stream_id and (stream := self._streams.get(stream_id)) is not None:
                pending = session.pending(stream_id)
                stream.drained(pending or 0)
                if pending is None:  # that was its last frame
                    self._streams.pop(stream_id, None)

    def _flush_later(self) -> None:
        self._flush_scheduled = False
        self._flush()

    def _forget_if_closed(self, stream_id: int) -> None:
        """Drop a stream that both sides have finished; its reader keeps what is unread."""
        if not self._session.is_open(stream_id):
            self._streams.pop(stream_id, None)

    def _schedule_tick(self) -> None:
        # uvloop's own clock ticks in milliseconds: too coarse for round-trip times.
        if self._transport is not None:
            self._set_timer(self._session.deadline() - time.monotonic(), self._tick)

    def _set_timer(self, wait_s: float, act: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(max(wait_s, 0.0), act)

    def _cut_if_unread(self, now: float) -> None:
        """Cut a peer that takes nothing of what waits for it, even when it still sends."""
        if self._transport is None or self.closed:
            return
        waiting = self._transport.buffered()
        taken = self._session.bytes_sent - waiting
        if not waiting or taken > self._taken:
            self._taken, self._taken_at = taken, now
        elif now - self._taken_at >= UNREAD_TIMEOUT_S:
            if self._counts is not None:
                self._counts.deaths[Death.UNREAD] += 1
            self._drop_transport(f"the peer read nothing for {now - self._taken_at:.0f} s")

    def _reset_overdue(self, now: float) -> None:
        for stream in list(self._streams.values()):
            if stream.due is not None and now >= stream.due:
                stream.reset(ResetCode.TIMEOUT, "half done for too long")

    def _shed(self) -> bool:
        """The process holds too much: the stream that holds most gives way."""
        heaviest = max(self._streams.values(), key=lambda stream: stream.held, default=None)
        if heaviest is None or not heaviest.held:
            return False
        if self._counts is not None:
            self._counts.sheds += 1
        heaviest.reset(ResetCode.OVERLOADED, "too much waits unread")
        return True

    def _tick(self) -> None:
        now = time.monotonic()
        self._cut_if_unread(now)
        self._reset_overdue(now)
        try:
            self._session.tick(now)
        except RemoteProtocolError as error:
            self._violated(error)
        self._dispatch()
        self._flush()
        self._schedule_tick()
