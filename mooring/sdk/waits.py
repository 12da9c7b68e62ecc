"""How long to wait before dialling the hub again."""

from __future__ import annotations

import asyncio
import random
import time

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
LONGEST_WAIT_RESUMING_S = 10.0
"""While streams wait for the next connection: they do so for a minute."""
STABLE_AFTER_S = 60.0


class Waits:
    """Full jitter between attempts, short again after a connection that was stable."""

    def __init__(self, cap_s: float = LONGEST_WAIT_S) -> None:
        """`cap_s` is the longest wait."""
        self._cap_s = cap_s
        self._longest_s = FIRST_WAIT_S
        self._connected_at: float | None = None

    def connected(self) -> None:
        """An attempt worked."""
        self._connected_at = time.monotonic()

    async def wait(self) -> None:
        """Wait before the next attempt."""
        at, self._connected_at = self._connected_at, None
        if at is not None and time.monotonic() - at > STABLE_AFTER_S:
            self._longest_s = FIRST_WAIT_S
        await asyncio.sleep(random.uniform(0, self._longest_s))  # noqa: S311  # full jitter
        self._longest_s = min(2 * self._longest_s, self._cap_s)
