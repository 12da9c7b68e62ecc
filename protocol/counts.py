"""What the tunnels of one kind refuse, suffer and carry: one `Counts` for all of them in a process.

The rule it guards: a DATA frame costs nothing here. Sessions add where something else happens; what
every frame would cost is read from the sessions that live when somebody asks.

    counts = Counts()
    tunnel = Tunnel(..., counts=counts)
    counts.resets_sent[ResetCode.REFUSED], counts.bytes_sent, counts.streams_open
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from enum import StrEnum
from typing import Protocol

from protocol.errors import GoAwayCode, ResetCode

RTT_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Counted(Protocol):
    """What is read from a session that lives."""

    bytes_sent: int
    bytes_received: int

    @property
    def stream_count(self) -> int:
        """How many streams are alive."""

    @property
    def stalled_count(self) -> int:
        """How many of them have data and no credit."""

    @property
    def replay_bytes(self) -> int:
        """What is kept of what was sent, until the peer has it."""


class Refusal(StrEnum):
    """Why an OPEN was not taken (SPEC §4.2)."""

    CLOSING = "closing"
    TOO_MANY = "too_many"
    TOO_FAST = "too_fast"
    OVERLOADED = "overloaded"
    UNKNOWN_KIND = "unknown_kind"
    MALFORMED = "malformed"


class Flood(StrEnum):
    """What a peer sent too much of (SPEC §4.3, §4.4, §4.6, §5.4)."""

    STRAYS = "strays"
    PINGS = "pings"
    WINDOWS = "windows"
    UNREAD = "unread_answers"


class Death(StrEnum):
    """What a peer did not do in time (SPEC §4.1, §4.6)."""

    NO_HELLO = "no_hello"
    SILENT = "silent"
    UNREAD = "unread"


class Histogram:
    """How many values were at most each bound, and their sum."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """`bounds` grow; values above the last one are counted beyond it."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """By bound, each value once; the last one is for what is above all bounds."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Counts:
    """Totals since the start of the process; only what is said to be *now* ever falls."""

    __slots__ = (
        "_ended_received", "_ended_sent", "_live", "credit_stalls", "deaths", "floods",
        "goaways_received", "goaways_sent", "opens_refused", "overruns", "resets_received",
        "resets_sent", "resumptions", "rtt_s", "sheds", "violations",
    )  # fmt: skip

    def __init__(self) -> None:
        self.resets_sent: Counter[ResetCode] = Counter()
        self.resets_received: Counter[ResetCode] = Counter()
        self.goaways_sent: Counter[GoAwayCode] = Counter()
        self.goaways_received: Counter[GoAwayCode] = Counter()
        self.violations: Counter[GoAwayCode] = Counter()
        """By the code of the GOAWAY that answered."""
        self.opens_refused: Counter[Refusal] = Counter()
        self.floods: Counter[Flood] = Counter()
        self.deaths: Counter[Death] = Counter()
        self.overruns = 0
        """DATA beyond the credit."""
        self.credit_stalls = 0
        """Times that a stream with data had no credit and got some again."""
        self.resumptions = 0
        """Sessions that went on over another connection."""
        self.sheds = 0
        """Streams reset because the process held too much."""
        self.rtt_s = Histogram(RTT_BOUNDS_S)
        self._live: set[Counted] = set()
        self._ended_sent = self._ended_received = 0

    def began(self, session: Counted) -> None:
        """A session lives; its bytes and streams are read from it."""
        self._live.add(session)

    def ended(self, session: Counted) -> None:
        """A session is over; twice is once."""
        if session in self._live:
            self._live.remove(session)
            self._ended_sent += session.bytes_sent
            self._ended_received += session.bytes_received

    @property
    def sessions(self) -> int:
        """How many live now."""
        return len(self._live)

    @property
    def streams_open(self) -> int:
        """Streams of all live sessions now."""
        return sum(session.stream_count for session in self._live)

    @property
    def streams_stalled(self) -> int:
        """Of these, how many have data and no credit now."""
        return sum(session.stalled_count for session in self._live)

    @property
    def replay_bytes(self) -> int:
        """What all live sessions keep for another connection now."""
        return sum(session.replay_bytes for session in self._live)

    @property
    def bytes_sent(self) -> int:
        """Bytes of frames, headers included."""
        return self._ended_sent + sum(session.bytes_sent for session in self._live)

    @property
    def bytes_received(self) -> int:
        """Bytes of frames, headers included."""
        return self._ended_received + sum(session.bytes_received for session in self._live)
