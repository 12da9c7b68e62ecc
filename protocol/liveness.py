"""Whether the peer lives and how far away it is: PINGs, round trips, silence (SPEC §4.1, §4.6)."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from protocol.counts import Death

PING_INTERVAL_S = 15.0
PING_SPREAD = 0.2
DEAD_AFTER_S = 35.0
HELLO_TIMEOUT_S = 10.0
EARLY_PINGS = 4  # at the start: one round trip alone may have met a busy peer
EARLY_PING_INTERVAL_S = 0.1

_SENT_AT = struct.Struct("!d")


class Liveness:
    """The clockwork of one session, begun again with each of its connections."""

    __slots__ = (
        "_connected_at", "_dialled", "_greeted", "_jitter", "_next_ping", "_ping_sent",
        "_rtts_seen", "_shortest_rtt_s", "heard_at", "rtt_s", "shortest_rtt_s",
    )  # fmt: skip

    def __init__(self, now: float, jitter: Callable[[], float], *, dialled: bool) -> None:
        """`jitter` draws from [0, 1) and spreads the pings."""
        self._jitter = jitter
        self._dialled = dialled
        self.rtt_s: float | None = None
        """The last round trip."""
        self.connected(now)

    def connected(self, now: float) -> None:
        """There is a connection, whose peer has not said HELLO."""
        self._connected_at = self.heard_at = now
        self._greeted = False
        self._next_ping = now + PING_INTERVAL_S
        self._ping_sent: float | None = None
        self._rtts_seen = 0
        self.shortest_rtt_s = 0.0
        """Of this connection, a longer one may have waited in our own queue; 0: not known yet."""
        self._shortest_rtt_s = math.inf  # of the early ones

    def greeted(self, now: float) -> None:
        """The peer said HELLO: learn the round-trip time at once."""
        self._greeted = True
        self._next_ping = now

    def deadline(self) -> float:
        """When something is due next."""
        if not self._greeted:
            return self._connected_at + HELLO_TIMEOUT_S
        return min(self._next_ping, self.heard_at + DEAD_AFTER_S)

    def death(self, now: float) -> tuple[Death, str] | None:
        """What the peer did not do in time, if that is so; said once."""
        if not self._greeted:
            if now < self._connected_at + HELLO_TIMEOUT_S:
                return None
            self._connected_at = now
            return Death.NO_HELLO, f"no HELLO within {HELLO_TIMEOUT_S:.0f} s"
        if now < self.heard_at + DEAD_AFTER_S:
            return None
        silence_s, self.heard_at = now - self.heard_at, now
        return Death.SILENT, f"nothing received for {silence_s:.0f} s"

    def ping(self, now: float) -> bytes | None:
        """The opaque bytes of a PING, when one is due."""
        if not self._greeted or now < self._next_ping:
            return None
        spread = 1 + PING_SPREAD * (2 * self._jitter() - 1)
        self._next_ping = now + PING_INTERVAL_S * spread
        self._ping_sent = now
        return _SENT_AT.pack(now)

    def pinged(self, now: float) -> bool:
        """The peer sent a PING; whether ours is left out for it.

        The side that dialled does so once it knows the round trip: half the pings of ten thousand
        idle agents are enough.
        """
        if not self._dialled or self._rtts_seen < EARLY_PINGS:
            return False
        self._next_ping = max(self._next_ping, now + PING_INTERVAL_S * (1 + PING_SPREAD))
        return True

    def pong(self, opaque: bytes, now: float) -> bool:
        """Measure by the PONG to our last PING; False when it is another one."""
        (sent,) = _SENT_AT.unpack(opaque)
        if self._ping_sent is None or sent != self._ping_sent:
            return False
        self._ping_sent = None
        self.rtt_s = max(now - sent, 0.0)
        self._shortest_rtt_s = min(self._shortest_rtt_s, self.rtt_s)
        self._rtts_seen += 1
        if self._rtts_seen < EARLY_PINGS:
            self._next_ping = now + EARLY_PING_INTERVAL_S
        else:
            self.shortest_rtt_s = self._shortest_rtt_s
        return True
