"""What is measured: one function per topic, each giving readings by series name.

A reading is either a level (what it is now) or a counter (a total since boot), which the sampler
turns into a rate. Lists are bounded here: cores, disks, interfaces and devices at most so many, in
a stable order.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import psutil

MAX_CORES = 64
MAX_DISKS = 16
MAX_INTERFACES = 16
MAX_DEVICES = 16
_SKIPPED_INTERFACES = re.compile(r"lo$|veth|docker|br-|virbr|cni|flannel|cali")
_SHORTEST_S = 0.05
"""The kernel counts in hundredths of a second: less time than this makes no percent."""
_SKIPPED_DEVICES = re.compile(r"loop|ram|zram|sr|fd")

Unit: TypeAlias = Literal["percent", "bytes", "bytes/s", "count", "load", "s"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of one series."""

    name: str
    unit: Unit
    value: float | None
    """None where there is nothing to say yet."""
    is_counter: bool = False
    """The value only grows; the series is its growth per second."""


@dataclass(frozen=True, slots=True)
class Collector:
    """A topic and how often it is worth reading."""

    name: str
    read: Callable[[], Iterator[Reading]]
    every_s: float = 0.0
    """0: at each sample; else an older reading is repeated until then."""


class CpuCollector:
    """Processor time as percent of the time since the last reading, total and per core."""

    def __init__(self) -> None:
        self._total = psutil.cpu_times()
        self._cores = psutil.cpu_times(percpu=True)

    def read(self) -> Iterator[Reading]:
        """Give the readings."""
        total, cores = psutil.cpu_times(), psutil.cpu_times(percpu=True)
        yield Reading("cpu.total", "percent", _busy(self._total, total))
        for field in ("user", "system", "iowait", "steal"):
            yield Reading(f"cpu.{field}", "percent", _share(self._total, total, field))
        pairs = zip(self._cores[:MAX_CORES], cores, strict=False)
        for number, (before, now) in enumerate(pairs):
            yield Reading(f"cpu.core.{number}", "percent", _busy(before, now))
        self._total, self._cores = total, cores


def read_load() -> Iterator[Reading]:
    """Give the load averages."""
    for minutes, value in zip((1, 5, 15), os.getloadavg(), strict=True):
        yield Reading(f"load.{minutes}", "load", value)


def read_memory() -> Iterator[Reading]:
    """Give memory and swap."""
    memory = psutil.virtual_memory()
    yield Reading("memory.used", "bytes", memory.used)
    yield Reading("memory.total", "bytes", memory.total)
    yield Reading("memory.available", "bytes", memory.available)
    yield Reading("memory.percent", "percent", memory.percent)
    swap = psutil.swap_memory()
    yield Reading("swap.used", "bytes", swap.used)
    yield Reading("swap.total", "bytes", swap.total)


def read_disks() -> Iterator[Reading]:
    """Give the space of mounted local file systems, each device once."""
    seen: set[str] = set()
    for part in psutil.disk_partitions(all=False):
        if part.device in seen or "loop" in part.device or len(seen) >= MAX_DISKS:
            continue
        seen.add(part.device)
        usage = psutil.disk_usage(part.mountpoint)
        yield Reading(f"disk.{part.mountpoint}.used", "bytes", usage.used)
        yield Reading(f"disk.{part.mountpoint}.total", "bytes", usage.total)
        yield Reading(f"disk.{part.mountpoint}.percent", "percent", usage.percent)


def read_devices() -> Iterator[Reading]:
    """Give the traffic of whole block devices."""
    counters = psutil.disk_io_counters(perdisk=True, nowrap=False) or {}
    whole = [name for name in sorted(counters) if _is_whole_device(name)]
    for name in whole[:MAX_DEVICES]:
        yield Reading(f"io.{name}.read", "bytes/s", counters[name].read_bytes, is_counter=True)
        yield Reading(f"io.{name}.write", "bytes/s", counters[name].write_bytes, is_counter=True)


def read_interfaces() -> Iterator[Reading]:
    """Give the traffic of network interfaces, those of containers left out."""
    counters = psutil.net_io_counters(pernic=True, nowrap=False)
    names = [name for name in sorted(counters) if not _SKIPPED_INTERFACES.match(name)]
    for name in names[:MAX_INTERFACES]:
        yield Reading(f"net.{name}.rx", "bytes/s", counters[name].bytes_recv, is_counter=True)
        yield Reading(f"net.{name}.tx", "bytes/s", counters[name].bytes_sent, is_counter=True)


def read_processes() -> Iterator[Reading]:
    """Give the number of processes, and of runnable threads."""
    yield Reading("processes.total", "count", len(psutil.pids()))
    running = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
    yield Reading("processes.running", "count", int(running))


def read_uptime() -> Iterator[Reading]:
    """Give the seconds since boot."""
    yield Reading("uptime", "s", time.clock_gettime(time.CLOCK_BOOTTIME))


def all_collectors() -> list[Collector]:
    """Return the table of everything that is measured, in the order of the series."""
    return [
        Collector("cpu", CpuCollector().read),
        Collector("load", read_load),
        Collector("memory", read_memory),
        Collector("disks", read_disks, every_s=10.0),
        Collector("devices", read_devices),
        Collector("interfaces", read_interfaces),
        Collector("processes", read_processes),
        Collector("uptime", read_uptime),
    ]


def _is_whole_device(name: str) -> bool:
    return not _SKIPPED_DEVICES.match(name) and Path("/sys/block", name.replace("/", "!")).exists()


def _busy(before: psutil._common.scputimes, now: psutil._common.scputimes) -> float | None:
    idle, iowait = _share(before, now, "idle"), _share(before, now, "iowait")
    return None if idle is None or iowait is None else max(0.0, 100.0 - idle - iowait)


def _share(
    before: psutil._common.scputimes, now: psutil._common.scputimes, field: str
) -> float | None:
    """Return the field's percent of the time between two readings, None when that is too short."""
    elapsed = _total(now) - _total(before)
    if elapsed < _SHORTEST_S:
        return None
    grown = getattr(now, field, 0.0) - getattr(before, field, 0.0)
    return float(min(100.0, max(0.0, 100.0 * grown / elapsed)))


def _total(times: psutil._common.scputimes) -> float:
    # The kernel counts guest time inside user and nice too.
    guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - guests)
