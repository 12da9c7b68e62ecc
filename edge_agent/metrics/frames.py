"""Samples as the wire carries them: a `Schema` names the series once, a `Sample` is bare numbers.

Values are scaled so that usual ones take one to three bytes: 0.1 % (0.5 % for single cores: there
are many), 64 B/s, 1 MiB, 0.01 of load.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.metrics.collectors import Unit
from edge_agent.metrics.sampler import Point
from protocol.record_types import Sample, Series

_SCALE: dict[Unit, float] = {
    "percent": 0.1,
    "bytes": 1024.0**2,
    "bytes/s": 64.0,
    "count": 1.0,
    "load": 0.01,
    "s": 1.0,
}
_CORE_SCALE = 0.5
_MAX_SERIES = 2000
_MAX_VALUE = 2**53


def series_of(points: Sequence[Point]) -> list[Series]:
    """Return the series of samples made of these points."""
    return [
        Series(name=point.name[:256], unit=point.unit, scale=_scale(point))
        for point in points[:_MAX_SERIES]
    ]


def sample_of(points: Sequence[Point], at_s: float) -> Sample:
    """Return the sample of these points, gaps at the end left out.

    Args:
        points: In the order of the schema.
        at_s: When they were taken, in seconds since the epoch.
    """
    values = [_scaled(point) for point in points[:_MAX_SERIES]]
    while values and values[-1] is None:
        values.pop()
    return Sample(at_ms=int(at_s * 1000), values=values)


def _scale(point: Point) -> float:
    return _CORE_SCALE if point.name.startswith("cpu.core.") else _SCALE[point.unit]


def _scaled(point: Point) -> int | None:
    if point.value is None:
        return None
    return min(round(point.value / _scale(point)), _MAX_VALUE)
