"""What a peer may cost us: opens per second, frames to no effect (SPEC §4.2, §4.3, §4.6)."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.errors import GoAwayCode, RemoteProtocolError

MAX_STRAY_FRAMES = 4096  # frames on closed streams, refused OPENs, empty DATA; in one period
MAX_PINGS = 200  # in one period
FLOOD_PERIOD_S = 10.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer may do. The defaults are for agents: 256 streams, 50 opens a second."""

    max_streams: int = 256
    opens_per_s: float = 50.0
    opens_burst: int = 256


DEFAULT_LIMITS = Limits()
LIMITS_OF_HUB = Limits(opens_per_s=5000.0, opens_burst=1000)
"""What agents and clients let their hub do: every connection through a forward is an OPEN."""


class Guard:
    """Counts what one peer does; one token bucket for OPENs, one window for frames to no effect."""

    __slots__ = ("_limits", "_opens", "_opens_at", "_period_start", "_pings", "_strays")

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._opens = float(limits.opens_burst)
        self._opens_at = self._period_start = now
        self._pings = self._strays = 0

    def may_open(self, open_streams: int, now: float) -> bool:
        """Whether the peer may open one more stream; counts it if so."""
        limits = self._limits
        refill = (now - self._opens_at) * limits.opens_per_s
        self._opens = min(limits.opens_burst, self._opens + refill)
        self._opens_at = now
        if open_streams >= limits.max_streams or self._opens < 1:
            self.stray(now)
            return False
        self._opens -= 1
        return True

    def ping(self, now: float) -> None:
        """Count a PING.

        Raises:
            RemoteProtocolError: FLOOD.
        """
        self._pings += 1
        self._check(now)

    def stray(self, now: float) -> None:
        """Count a frame that achieved nothing.

        Raises:
            RemoteProtocolError: FLOOD.
        """
        self._strays += 1
        self._check(now)

    def _check(self, now: float) -> None:
        if now - self._period_start > FLOOD_PERIOD_S:
            self._period_start = now
            self._pings = self._strays = 0
        elif self._pings > MAX_PINGS or self._strays > MAX_STRAY_FRAMES:
            raise RemoteProtocolError("too many frames to no effect", GoAwayCode.FLOOD)
