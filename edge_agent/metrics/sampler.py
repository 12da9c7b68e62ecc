"""Takes samples: asks each collector, turns counters into rates, leaves gaps where one fails.

A rate is the growth since the last sample, so a sample every 10 s is the exact mean of those 10 s
and nothing needs to be measured in between. One sampler serves one stream.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge_agent.metrics.collectors import Collector, Reading, Unit, all_collectors

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a sample; None is a gap."""

    name: str
    unit: Unit
    value: float | None


@dataclass(slots=True)
class _Topic:
    """What is known of one collector."""

    collector: Collector
    read_at: float | None = None
    readings: list[Reading] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    failed: bool = False


class Sampler:
    """The node's metrics, one sample at a time."""

    def __init__(
        self,
        collectors: Sequence[Collector] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Measure with these collectors, by default all; `clock` gives seconds."""
        self._clock = clock
        chosen = all_collectors() if collectors is None else collectors
        self._topics = [_Topic(collector) for collector in chosen]

    async def sample(self) -> list[Point]:
        """Return the values of all series now, always in the same order.

        The loop gets a turn between the collectors, so that no keystroke waits for all of them.
        """
        points: list[Point] = []
        for topic in self._topics:
            _refresh(topic, self._clock())
            points += topic.points
            await asyncio.sleep(0)
        return points


def _refresh(topic: _Topic, now: float) -> None:
    """Read a topic again if it is due."""
    if topic.read_at is not None and now - topic.read_at < topic.collector.every_s:
        return
    try:
        readings = list(topic.collector.read())
    except Exception:
        # Deliberately wide: whatever is wrong with one topic must not cost the others.
        if not topic.failed:
            _log.warning("no %s metrics for now", topic.collector.name, exc_info=True)
        topic.failed = True
        topic.readings = []
        topic.points = [Point(point.name, point.unit, None) for point in topic.points]
        return
    topic.failed = False
    before = {reading.name: reading.value for reading in topic.readings}
    elapsed = now - topic.read_at if topic.read_at is not None else 0.0
    topic.points = [_point(reading, before.get(reading.name), elapsed) for reading in readings]
    topic.readings, topic.read_at = readings, now


def _point(reading: Reading, before: float | None, elapsed: float) -> Point:
    value = reading.value
    if reading.is_counter and value is not None:
        grown = value - before if before is not None else -1
        value = grown / elapsed if grown >= 0 and elapsed > 0 else None  # a reset counter is a gap
    return Point(reading.name, reading.unit, value)
