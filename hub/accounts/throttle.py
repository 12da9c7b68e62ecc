"""Slows password guessing: 5 attempts a minute per name and address, then a back-off that doubles.

The rule it guards: an attempt counts when it begins, so parallel ones gain nothing; what is
remembered is bounded (the least recently used leave first).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from hub.errors import Throttled

ATTEMPTS = 5
WINDOW_S = 60.0
BACKOFF_LIMIT_S = 900.0
FORGET_S = 3_600.0
"""A pause after which the back-off starts small again."""
KEYS_LIMIT = 10_000


@dataclass(slots=True)
class _Record:
    window_start: float
    attempts: int = 0
    strikes: int = 0
    blocked_until: float = 0.0


@dataclass(slots=True)
class Throttle:
    """Counts attempts by name and address."""

    _clock: Callable[[], float] = time.monotonic
    _records: OrderedDict[tuple[str, str], _Record] = field(default_factory=OrderedDict)

    def attempt(self, name: str, address: str) -> None:
        """Count an attempt.

        Raises:
            Throttled: it must not be made; says how long to wait.
        """
        now = self._clock()
        record = self._record(name, address, now)
        if now < record.blocked_until:
            raise Throttled(record.blocked_until - now)
        if now - record.window_start >= WINDOW_S:
            record.window_start, record.attempts = now, 0
        record.attempts += 1
        if record.attempts > ATTEMPTS:
            backoff_s = min(WINDOW_S * 2**record.strikes, BACKOFF_LIMIT_S)
            record.strikes = min(record.strikes + 1, 10)
            record.blocked_until = now + backoff_s
            record.attempts = 0
            raise Throttled(backoff_s)

    def succeeded(self, name: str, address: str) -> None:
        """Forget the attempts of somebody who knew the password."""
        self._records.pop((name, address), None)

    def _record(self, name: str, address: str, now: float) -> _Record:
        key = (name[:64], address)
        record = self._records.get(key)
        if record is None or now - max(record.window_start, record.blocked_until) > FORGET_S:
            record = self._records[key] = _Record(now)
        self._records.move_to_end(key)
        if len(self._records) > KEYS_LIMIT:
            self._records.popitem(last=False)
        return record
