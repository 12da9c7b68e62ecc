"""Token buckets by key, for callers that nobody has authenticated yet; bounded in memory.

    buckets = Buckets(per_s=20 / 60, burst=40)
    wait_s = buckets.take(address, now)      # 0.0: go on; else come back after that many seconds

When more than `limit` keys are known, the one unused for longest is forgotten, and starts full
again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field


@dataclass(slots=True)
class Buckets:
    """Many buckets of the same size, filled at the same rate."""

    per_s: float
    burst: float
    limit: int = 10_000
    _levels: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def take(self, key: str, now: float) -> float:
        """Take one from `key`'s bucket; returns 0.0, or the seconds until there is one."""
        level, since = self._levels.pop(key, (self.burst, now))
        level = min(self.burst, level + max(0.0, now - since) * self.per_s)
        taken = level >= 1.0
        self._levels[key] = (level - 1.0 if taken else level, now)
        if len(self._levels) > self.limit:
            self._levels.popitem(last=False)
        return 0.0 if taken else (1.0 - level) / self.per_s

    def give_back(self, key: str) -> None:
        """Undo a `take` that need not have counted."""
        if known := self._levels.get(key):
            self._levels[key] = (min(self.burst, known[0] + 1.0), known[1])
