"""What a node measures: series checked once per schema, values made of samples.

The rule it guards: names and units that an agent sends are printable, bounded and unique, and a
value is a finite number or a gap, so that nothing later has to look again. A gap is NaN in arrays
and None outside.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from protocol.errors import RemoteProtocolError
from protocol.record_types import Sample, Schema

NAME_LIMIT = 200
UNIT_LIMIT = 32
SCALE_LIMIT = 1e9
"""With a 64-bit integer the product still fits a 32-bit float."""
GAP = math.nan


class SeriesInfo(msgspec.Struct, frozen=True):
    """A series' name and the unit of its values."""

    name: str
    """Dotted: cpu.total, disk./.used."""
    unit: str


class RefusedMetrics(Exception):
    """Records that can't be taken; the stream is reset with `reason`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class NodeSchema:
    """The series of the samples that follow, in their order; compared by identity."""

    series: tuple[SeriesInfo, ...]
    scales: tuple[float, ...]
    cpu: int | None
    """The place of `cpu.total`."""
    memory: int | None
    """The place of `memory.percent`."""

    @property
    def width(self) -> int:
        """How many values a sample has."""
        return len(self.series)

    def percents(self, row: array[float]) -> tuple[float, float]:
        """Return a row's processor and memory percent."""
        return (
            GAP if self.cpu is None else row[self.cpu],
            GAP if self.memory is None else row[self.memory],
        )

    def row(self, sample: Sample) -> array[float]:
        """Return a sample's values in their units, as 32-bit floats with NaN for gaps.

        Raises:
            RefusedMetrics: more values than series.
        """
        if len(sample.values) > self.width:
            raise RefusedMetrics(f"a sample of {len(sample.values)} values for {self.width} series")
        row = array(
            "f",
            [
                GAP if value is None else value * scale
                for value, scale in zip(sample.values, self.scales, strict=False)
            ],
        )
        row.extend([GAP] * (self.width - len(row)))
        return row


def checked_schema(schema: Schema) -> NodeSchema:
    """Make a schema of what an agent sent.

    Raises:
        RefusedMetrics: a name, unit or scale can't be taken, or a name appears twice.
    """
    try:
        sent = schema.series()
    except RemoteProtocolError as error:
        raise RefusedMetrics(error.reason) from error
    for series in sent:
        if not 0 < len(series.name) <= NAME_LIMIT or not series.name.isprintable():
            raise RefusedMetrics(f"a series is called {series.name[:80]!r}")
        if len(series.unit) > UNIT_LIMIT or not series.unit.isprintable():
            raise RefusedMetrics(f"series {series.name} has the unit {series.unit[:80]!r}")
        if not 0 < abs(series.scale) <= SCALE_LIMIT:  # false for NaN too
            raise RefusedMetrics(f"series {series.name} has the scale {series.scale}")
    places = {series.name: place for place, series in enumerate(sent)}
    if len(places) < len(sent):
        raise RefusedMetrics("two series have the same name")
    return NodeSchema(
        tuple(SeriesInfo(series.name, series.unit) for series in sent),
        tuple(series.scale for series in sent),
        places.get("cpu.total"),
        places.get("memory.percent"),
    )


def outside(values: Iterable[float]) -> list[float | None]:
    """Return values for people and programs: rounded to thousandths, None for gaps."""
    return [None if value != value else round(value, 3) for value in values]
