"""What one reader watches: samples of some nodes as they come, dropping the oldest when it is slow.

A sample carries its schema, so that a reader that lost some still knows what the values mean.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Set
from dataclasses import dataclass, field

from hub.metrics.series import NodeSchema

QUEUE_LIMIT = 512
"""Samples that wait for one reader: 16 seconds of 32 nodes."""


@dataclass(frozen=True, slots=True)
class LiveSample:
    """One node's values at a time, in the order of the schema's series."""

    node_id: str
    schema: NodeSchema
    at: float
    values: list[float | None]


@dataclass(eq=False, slots=True)
class Feed:
    """An endless asynchronous iterator over the samples of the watched nodes."""

    _on_watch: Callable[[Feed, Set[str], Set[str]], None]
    """Told which nodes came and which went."""
    _watched: frozenset[str] = frozenset()
    _queue: deque[LiveSample] = field(default_factory=lambda: deque(maxlen=QUEUE_LIMIT))
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def watch(self, node_ids: Iterable[str]) -> None:
        """Watch exactly these nodes from now on."""
        before, self._watched = self._watched, frozenset(node_ids)
        self._on_watch(self, self._watched - before, before - self._watched)

    def offer(self, sample: LiveSample) -> None:
        """Queue a sample; the oldest one leaves when 512 wait."""
        self._queue.append(sample)
        self._wake.set()

    def __aiter__(self) -> Feed:
        return self

    async def __anext__(self) -> LiveSample:
        """Wait for the next sample of a node that is still watched."""
        while True:
            while self._queue:
                sample = self._queue.popleft()
                if sample.node_id in self._watched:
                    return sample
            self._wake.clear()
            await self._wake.wait()
