"""What a peer may cost us: opens per second, frames to no effect (SPEC §4.2–§4.7)."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.counts import Counts, Flood, Refusal
from protocol.errors import GoAwayCode, RemoteProtocolError
from protocol.replay import ENTRY_BYTES, REPLAY_BUDGET

MAX_STRAY_FRAMES = 4096  # frames on closed streams, refused OPENs, empty DATA, PONGs; in one period
MAX_PINGS = 200  # in one period
MAX_WINDOWS = 4096  # in one period, and one more for each `BYTES_PER_WINDOW` that we sent
BYTES_PER_WINDOW = 4096
STRAYS_PER_RESET = 16  # more, for each stream that we reset: frames may have crossed it
STRAYS_SENT_AGAIN = REPLAY_BUDGET // ENTRY_BYTES  # more, when the peer sends again what it kept
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

    __slots__ = (
        "_counts", "_limits", "_opens", "_opens_at", "_period_start", "_pings", "_resets",
        "_sent_again", "_sent_before", "_strays", "_windows",
    )  # fmt: skip

    def __init__(self, limits: Limits, now: float, counts: Counts) -> None:
        self._limits = limits
        self._counts = counts
        self._opens = float(limits.opens_burst)
        self._opens_at = self._period_start = now
        self._pings = self._strays = self._windows = self._resets = self._sent_before = 0
        self._sent_again = 0

    def refusal(self, open_streams: int, now: float) -> Refusal | None:
        """Why the peer may not open one more stream; None when it may, which is counted."""
        limits = self._limits
        refill = (now - self._opens_at) * limits.opens_per_s
        self._opens = min(limits.opens_burst, self._opens + refill)
        self._opens_at = now
        if open_streams >= limits.max_streams:
            return Refusal.TOO_MANY
        if self._opens < 1:
            return Refusal.TOO_FAST
        self._opens -= 1
        return None

    def ping(self, now: float) -> None:
        """Count a PING.

        Raises:
            RemoteProtocolError: FLOOD.
        """
        self._begin_period(now)
        self._pings += 1
        self._check(self._pings, MAX_PINGS, Flood.PINGS)

    def reset(self) -> None:
        """We reset a stream that was open: the peer could not know."""
        self._resets += 1

    def resumed(self) -> None:
        """The peer sends again what it kept, also of streams that we reset since; once a period."""
        self._sent_again = STRAYS_SENT_AGAIN

    def stray(self, now: float) -> None:
        """Count a frame that achieved nothing.

        Raises:
            RemoteProtocolError: FLOOD.
        """
        self._begin_period(now)
        self._strays += 1
        most = MAX_STRAY_FRAMES + STRAYS_PER_RESET * self._resets + self._sent_again
        self._check(self._strays, most, Flood.STRAYS)

    def window(self, now: float, bytes_sent: int) -> None:
        """Count a WINDOW frame; `bytes_sent` is what the session has sent since it began.

        Raises:
            RemoteProtocolError: FLOOD.
        """
        if self._begin_period(now):
            self._sent_before = bytes_sent
        self._windows += 1
        earned = (bytes_sent - self._sent_before) // BYTES_PER_WINDOW
        self._check(self._windows, MAX_WINDOWS + earned, Flood.WINDOWS)

    def _begin_period(self, now: float) -> bool:
        if now - self._period_start <= FLOOD_PERIOD_S:
            return False
        self._period_start = now
        self._pings = self._strays = self._windows = self._resets = self._sent_again = 0
        return True

    def _check(self, count: int, most: int, flood: Flood) -> None:
        if count > most:
            self._counts.floods[flood] += 1
            reason = f"too many frames to no effect: {count} {flood} in {FLOOD_PERIOD_S:.0f} s"
            raise RemoteProtocolError(reason, GoAwayCode.FLOOD)
