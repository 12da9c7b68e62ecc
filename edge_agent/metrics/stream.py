"""Sends samples on a `metrics` stream: every 10 s, each second while the hub says somebody watches.

The agent runs it once for each tunnel, on a stream that it opened with `Metrics()`:
`await stream_metrics(Channel(stream, Rate), Sampler())`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TypeAlias

from edge_agent.metrics.frames import sample_of, series_of
from edge_agent.metrics.sampler import Sampler
from protocol.aio import Channel, RemoteProtocolError, StreamReset, TunnelClosed
from protocol.record_types import MetricsFromAgent, Rate, Schema, Series

_log = logging.getLogger(__name__)

RESTING_INTERVAL_S = 10
_Channel: TypeAlias = Channel[MetricsFromAgent, Rate]


async def stream_metrics(channel: _Channel, sampler: Sampler) -> None:
    """Send samples until the hub or the loss of the tunnel ends the stream."""
    try:
        async with asyncio.TaskGroup() as tasks:
            pace = _Pace()
            sending = tasks.create_task(_send(channel, sampler, pace))
            while (rate := await channel.receive()) is not None:
                pace.set(rate.interval_s)
            sending.cancel()
    except* (StreamReset, TunnelClosed):
        pass
    except* RemoteProtocolError as errors:
        _log.warning("metrics: %s", errors.exceptions[0])  # the channel was reset
    channel.finish()


class _Pace:
    """When the next sample is due; a new interval counts at once."""

    def __init__(self) -> None:
        self._interval_s = float(RESTING_INTERVAL_S)
        self._changed = asyncio.Event()

    def set(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._changed.set()

    async def wait(self, last: float) -> float:
        """Wait until an interval has passed since `last`; return when it had, in the loop's time.

        That keeps the beat; only who is late by more than an interval leaves beats out.
        """
        loop = asyncio.get_running_loop()
        while (due := last + self._interval_s) > loop.time():
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._changed.wait()
        return due if loop.time() - due < self._interval_s else loop.time()


async def _send(channel: _Channel, sampler: Sampler, pace: _Pace) -> None:
    taken = asyncio.get_running_loop().time()
    series: list[Series] | None = None
    while True:
        at_s = time.time()
        points = await sampler.sample()
        current = series_of(points)
        if current != series:
            series = current
            await channel.send(Schema.of(series))
        await channel.send(sample_of(points, at_s))
        taken = await pace.wait(taken)
