"""Figures: percentiles, CPU seconds and memory of processes, medians and ratios over rounds."""

from __future__ import annotations

import contextlib
import os
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import msgspec
import psutil

MIB = 1 << 20
GIB = 1 << 30


class Latency(msgspec.Struct, frozen=True):
    """What `count` round trips took, in milliseconds."""

    count: int
    p50: float
    p99: float


def latency(samples_s: Sequence[float]) -> Latency:
    """Sum up durations given in seconds."""
    ordered = sorted(samples_s)
    if not ordered:
        raise ValueError("nothing was measured")

    def at(share: float) -> float:
        return round(1e3 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 3)

    return Latency(len(ordered), at(0.5), at(0.99))


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds, user and system, that the processes have used; those that are gone count 0."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            times = psutil.Process(pid).cpu_times()
            total += times.user + times.system
    return total


def resident(pids: Iterable[int]) -> int:
    """Resident bytes of the processes; those that are gone count 0."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += psutil.Process(pid).memory_info().rss
    return total


def tree(pid: int) -> list[int]:
    """A process and everything below it."""
    try:
        root = psutil.Process(pid)
        return [pid, *(child.pid for child in root.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def load() -> float:
    """The load average of the last minute: above the number of cores the run is disturbed."""
    return round(os.getloadavg()[0], 2)


class Spread(msgspec.Struct, frozen=True):
    """What the rounds gave: the median, and between which values."""

    median: float
    low: float
    high: float


Values: TypeAlias = dict[str, dict[str, list[float | None]]]


class Rounds:
    """Values by peer and metric, one a round; None in a round that gave none."""

    def __init__(self, values: Values | None = None) -> None:
        self.values: Values = {} if values is None else values
        self._round = 0

    def each(self, count: int) -> Iterator[int]:
        """Number `count` rounds from 1; what is added meanwhile belongs to that round."""
        for self._round in range(1, count + 1):
            yield self._round

    def add(self, peer: str, **metrics: float) -> None:
        """Note what this round gave for a peer."""
        for metric, value in metrics.items():
            column = self.values.setdefault(peer, {}).setdefault(metric, [])
            column += [None] * (self._round - 1 - len(column))
            column.append(round(value, 4))

    @property
    def peers(self) -> list[str]:
        """The peers in the order of their first value."""
        return list(self.values)

    def spread(self, peer: str, metric: str, to: str | None = None) -> Spread | None:
        """Sum up the rounds; None when there is no value.

        Args:
            peer: whose.
            metric: which.
            to: sum up the ratios to this peer within each round, so that drift of the machine
                cancels.
        """
        found = self._column(peer, metric)
        if to is not None:
            base = self._column(to, metric)
            found = [
                None if mine is None or not theirs else mine / theirs
                for mine, theirs in zip(found, base, strict=False)
            ]
        known = [value for value in found if value is not None]
        if not known:
            return None
        return Spread(*(round(f(known), 4) for f in (statistics.median, min, max)))

    def median(self, peer: str, metric: str) -> float | None:
        """The median over the rounds; None when there is no value."""
        found = self.spread(peer, metric)
        return None if found is None else found.median

    def ratio(self, peer: str, to: str, metric: str) -> float | None:
        """The median of the ratios within each round."""
        found = self.spread(peer, metric, to)
        return None if found is None else found.median

    def summary(self) -> dict[str, dict[str, Spread]]:
        """Every metric of every peer, summed up."""
        return {
            peer: {metric: found for metric in metrics if (found := self.spread(peer, metric))}
            for peer, metrics in self.values.items()
        }

    def _column(self, peer: str, metric: str) -> list[float | None]:
        return self.values.get(peer, {}).get(metric, [])
