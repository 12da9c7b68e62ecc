"""Nodes that come online, counted, so that whoever waits for one misses no arrival and never polls.

A waiter takes `seen` before it tries; when the try fails, `wait` returns at once if the node
arrived between.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field

from protocol.errors import ProtocolError, ResetCode, StreamReset, TunnelClosed


def was_cut(error: ProtocolError) -> bool:
    """Whether a lost connection ended a stream: the node's next arrival is to be waited for.

    A session that goes on may still lose a stream, of which more was under way than is kept
    (SPEC §4.9); the arrival has come already then, or comes at once.
    """
    lost = isinstance(error, StreamReset) and error.code is ResetCode.LOST
    return lost or isinstance(error, TunnelClosed)


@dataclass(slots=True)
class Arrivals:
    """How often each node came online since the hub started, and who waits for it."""

    _counts: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    _waiters: defaultdict[str, set[asyncio.Future[None]]] = field(
        default_factory=lambda: defaultdict(set)
    )

    def seen(self, node_id: str) -> int:
        """Return the count to give to `wait`."""
        return self._counts[node_id]

    def arrived(self, node_id: str) -> None:
        """Wake all who wait for the node."""
        self._counts[node_id] += 1
        for waiter in self._waiters.pop(node_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, node_id: str, seen: int) -> None:
        """Wait until the node has arrived once more than `seen` says."""
        if self._counts[node_id] != seen:
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[node_id].add(waiter)
        try:
            await waiter
        finally:
            waiters = self._waiters.get(node_id)
            if waiters is not None:
                waiters.discard(waiter)
                if not waiters:
                    del self._waiters[node_id]
