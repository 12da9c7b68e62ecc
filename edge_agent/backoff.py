"""When to dial again: full jitter, a stability gate, and what the hub asked for.

Pure: time and chance are arguments. The back-off grows with every attempt and is forgotten only
after a tunnel that lived for `STABLE_S`: a hub that accepts and then drops is not hammered.
"""

from __future__ import annotations

from collections.abc import Callable

from protocol.errors import GoAwayCode
from protocol.events import PeerGoesAway

FIRST_S = 1.0
CAP_S = 60.0
STABLE_S = 60.0
SOON_CAP_S = 10.0
"""While streams wait for the next connection, as they do for a minute, or the hub restarts."""
RESTART_ATTEMPTS = 10
"""So many after a hub said that it stops."""
REFUSED_S = 300.0
"""After a refusal for good (revoked, unknown, expired): 5 to 15 minutes."""
REPLACED_S = 5.0
"""At least so long after another tunnel of this node took over: it may be our own successor."""


class Backoff:
    """The delays of one agent."""

    __slots__ = ("_attempts", "_random", "_soon")

    def __init__(self, random: Callable[[], float]) -> None:
        """`random` draws from [0, 1)."""
        self._random = random
        self._attempts = 0
        self._soon = 0

    def lost(self, lived_s: float, retry_after_s: float = 0.0, *, resuming: bool = False) -> float:
        """Seconds to wait after an attempt whose tunnel lived `lived_s` (0: it never stood).

        `retry_after_s` above 0 is the hub's word: a random time up to it is waited at least.
        `resuming` says that streams wait for the next connection.
        """
        if lived_s >= STABLE_S:
            self._attempts = 0
        cap_s = SOON_CAP_S if resuming or self._soon else CAP_S
        self._soon = max(self._soon - 1, 0)
        ceiling: float = min(cap_s, FIRST_S * 2 ** min(self._attempts, 16))
        self._attempts += 1
        return self._random() * max(ceiling, retry_after_s)

    def ended(self, lived_s: float, goaway: PeerGoesAway | None) -> float:
        """Seconds to wait after a tunnel that lived `lived_s`, and what the hub said at its end."""
        if goaway is None:
            return self.lost(lived_s)
        if goaway.code is GoAwayCode.REVOKED:
            return self.refused()
        if goaway.code is GoAwayCode.REPLACED:
            return max(REPLACED_S, self.lost(0))
        if goaway.code is GoAwayCode.SHUTDOWN:
            self._soon = RESTART_ATTEMPTS
        return self.lost(lived_s, goaway.retry_after_s)

    def refused(self) -> float:
        """Seconds to wait after the hub refused this node by name."""
        return REFUSED_S * (1 + 2 * self._random())
