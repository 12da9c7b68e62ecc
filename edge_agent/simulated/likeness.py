"""What a simulated node says of itself: facts that never change, metrics that wander.

Facts are made from the name alone, so that a second run reports what the hub knows already. The
series are those of a server with eight cores and four disks: 114, as the design counts them.
"""

from __future__ import annotations

import random
import time
import zlib
from functools import cache

from protocol.messages import Disk, Facts
from protocol.record_types import Sample, Schema, Series

VERBS = ["exec"]
_GIB = 1024**3
_CORES = 8
_DISKS = ("/", "/home", "/srv", "/var")
_DEVICES = ("vda", "vdb", "vdc", "vdd")
_NICS = tuple(f"eth{number}" for number in range(8))


def facts_of(name: str, agent_version: str) -> Facts:
    """Return the facts of the node of this name."""
    number = zlib.crc32(name.encode())
    cores = (2, 4, 8, 16)[number % 4]
    address = ".".join(str(byte) for byte in (10, *(number & 0xFFFFFF).to_bytes(3)))
    return Facts(
        hostname=name,
        os_id="debian",
        os_family="debian",
        os_name="Debian GNU/Linux 12 (bookworm)",
        os_version="12",
        arch="x86_64",
        kernel="6.1.0-31-amd64",
        cpus=cores,
        cpu_model="a simulated node",
        memory_bytes=cores * 4 * _GIB,
        disks=[
            Disk(mount=mount, device=f"/dev/{device}", kind="ext4", size_bytes=100 * _GIB)
            for mount, device in zip(_DISKS, _DEVICES, strict=True)
        ],
        addresses=[address],
        boot_id=f"simulated-{number:08x}",
        boot_time=1_750_000_000,
        timezone="Etc/UTC",
        agent_version=agent_version,
        agent_user="root",
        verbs=VERBS,
    )


@cache
def schema() -> Schema:
    """Return the schema of every simulated node."""
    return Schema.of(_series())


@cache
def _series() -> list[Series]:
    shown = [("percent", 0.1, f"cpu.{part}") for part in ("total", "user", "system", "iowait")]
    shown += [("percent", 0.5, f"cpu.core.{core}") for core in range(_CORES)]
    shown += [("load", 0.01, f"load.{minutes}") for minutes in (1, 5, 15)]
    shown += [("percent", 0.1, "memory.percent")]
    shown += [("bytes", 1024.0**2, f"memory.{part}") for part in ("used", "total", "available")]
    shown += [("bytes", 1024.0**2, f"swap.{part}") for part in ("used", "total")]
    for mount in _DISKS:
        shown += [("bytes", 1024.0**2, f"disk.{mount}.{part}") for part in ("used", "total")]
        shown += [("percent", 0.1, f"disk.{mount}.percent")]
    for device in _DEVICES:
        shown += [("bytes/s", 64.0, f"io.{device}.{way}") for way in ("read", "write")]
    for nic in _NICS:
        shown += [("bytes/s", 64.0, f"net.{nic}.{way}") for way in ("rx", "tx")]
    shown += [("count", 1.0, f"processes.{part}") for part in ("total", "running")]
    shown += [("s", 1.0, "uptime")]
    rest = _SERIES - len(shown)
    shown += [("count", 1.0, f"custom.{number}") for number in range(rest)]
    return [Series(name=n, unit=unit, scale=scale) for unit, scale, n in shown]


_SERIES = 114
_HIGHEST = {"percent": 1.0, "load": 800.0, "bytes": 60_000.0, "bytes/s": 90_000.0}


class Vitals:
    """The values of one node: each wanders a little from sample to sample."""

    __slots__ = ("_values",)

    def __init__(self) -> None:
        self._values: list[int | None] = [
            int(random.random() * _highest(series))  # noqa: S311 - not a secret
            for series in _series()
        ]

    def sample(self) -> Sample:
        """Return the next sample, taken now."""
        values = self._values
        for place in random.sample(range(len(values)), len(values) // 4):
            value = values[place] or 0
            values[place] = value + (value >> 5) * random.choice((-1, 1))  # noqa: S311
        return Sample(at_ms=int(time.time() * 1000), values=values)


def _highest(series: Series) -> float:
    if series.unit == "percent":
        return 90 / series.scale
    return _HIGHEST.get(series.unit, 400.0)
