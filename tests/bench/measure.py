"""Figures: percentiles, CPU seconds of processes, and medians and ratios over rounds."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable, Sequence

import msgspec
import psutil

MIB = 1 << 20
GIB = 1 << 30
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


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
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
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


class Rounds:
    """Values by peer and metric, one a round."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, list[float]]] = {}

    def add(self, peer: str, **metrics: float) -> None:
        """Note what one round gave for a peer."""
        for metric, value in metrics.items():
            self.values.setdefault(peer, {}).setdefault(metric, []).append(round(value, 4))

    @property
    def peers(self) -> list[str]:
        """The peers in the order of their first value."""
        return list(self.values)

    def median(self, peer: str, metric: str) -> float | None:
        """The median over the rounds; None when there is no value."""
        found = self.values.get(peer, {}).get(metric)
        return statistics.median(found) if found else None

    def ratio(self, peer: str, to: str, metric: str) -> float | None:
        """The median of the ratios within each round, so that drift of the machine cancels."""
        ours = self.values.get(peer, {}).get(metric, [])
        theirs = self.values.get(to, {}).get(metric, [])
        pairs = [a / b for a, b in zip(ours, theirs, strict=False) if b]
        return statistics.median(pairs) if pairs else None
