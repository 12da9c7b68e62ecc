"""One connection of a forward: its bytes, how it is ended, when it has been idle for too long.

The rule it guards: no connection stays open for ever without a byte. One sweeper looks at all of
them every few seconds, so that none needs a timer and no byte a look at the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from hub.ids import sortable_id
from hub.node_reports import clean_text
from hub.splice import Traffic, splice
from hub.ways import ConnectionView
from protocol.aio import ResetCode, Stream, StreamReset


@dataclass(frozen=True, slots=True)
class Limits:
    """How many and how long."""

    forwards_per_user: int = 1000
    connections_per_user: int = 1000
    half_closed_s: float = 60.0
    """Without a byte, once one side has finished."""
    idle_s: float = 3600.0
    sweep_s: float = 5.0
    """How often all connections are looked at: the precision of these times."""


class Connection:
    """One connection of a forward; made by `OpenForward.connection`."""

    def __init__(self, peer: str, host: str, port: int | None) -> None:
        self.id = sortable_id()
        self.traffic = Traffic()
        self.ended: StreamReset | None = None
        """Set when the hub ended it: closed by somebody, idle."""
        self.refused = ""
        """Why the target's side refused it."""
        self._peer, self._host, self._port = peer, host, port
        self._since = time.time()
        self._active_at = time.monotonic()
        self._seen = 0
        self._end: Callable[[StreamReset], None] | None = None

    async def carry(self, a: Stream, b: Stream) -> StreamReset | None:
        """Join whoever connected, `a`, to the target, `b`; return what ended it early."""

        def end(cause: StreamReset) -> None:
            a.reset(cause.code, cause.reason)
            b.reset(cause.code, cause.reason)

        self.end_by(end)
        cause = await splice(a, b, self.traffic)
        if cause is not None and cause.code is ResetCode.REFUSED and self.ended is None:
            self.refused = clean_text(str(cause))
        return self.ended or cause

    def end_by(self, end: Callable[[StreamReset], None]) -> None:
        """Say how the hub ends this connection; called at once when it has ended already."""
        self._end = end
        if self.ended is not None:
            end(self.ended)

    def end(self, code: ResetCode, reason: str) -> None:
        """End it from the hub's side; the first reason stays."""
        if self.ended is None:
            self.ended = StreamReset(code, reason)
            if self._end is not None:
                self._end(self.ended)

    def limit(self, limits: Limits, now: float) -> None:
        """End the connection when it was idle for too long; `now` is monotonic."""
        idle_s = now - self.active_at(now)
        sent, received = self.traffic.sent, self.traffic.received
        if idle_s >= limits.idle_s:
            self.end(ResetCode.TIMEOUT, f"idle for {limits.idle_s / 60:.3g} minutes")
        elif sent.ended != received.ended and idle_s >= limits.half_closed_s:
            reason = f"half closed and idle for {limits.half_closed_s:.3g} s"
            self.end(ResetCode.TIMEOUT, reason)

    def active_at(self, now: float) -> float:
        """When the last byte passed, as far as it was noticed; `now` is monotonic."""
        size = self.traffic.sent.size_bytes + self.traffic.received.size_bytes
        if size != self._seen:
            self._seen, self._active_at = size, now
        return self._active_at

    def view(self, now: float) -> ConnectionView:
        """Show it with the bytes so far."""
        return ConnectionView(
            id=self.id,
            peer=self._peer,
            host=self._host,
            port=self._port,
            since=self._since,
            last_activity=time.time() - now + self.active_at(now),
            sent_bytes=self.traffic.sent.size_bytes,
            received_bytes=self.traffic.received.size_bytes,
        )
