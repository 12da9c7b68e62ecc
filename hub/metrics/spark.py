"""A node's last ten minutes in sixty values each of processor and memory, for lists of nodes.

A ring of 10 s slots in three small arrays: asking for a hundred nodes unpacks nothing.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import msgspec

from hub.metrics.series import GAP, outside

SLOTS = 60
SLOT_S = 10.0


class Spark(msgspec.Struct, frozen=True):
    """Percent per 10 s, oldest first, the newest last; None is a gap."""

    cpu: list[float | None]
    memory: list[float | None]


NO_SPARK = Spark([None] * SLOTS, [None] * SLOTS)


def _slots() -> array[int]:
    return array("q", [-1]) * SLOTS


def _gaps() -> array[float]:
    return array("f", [GAP]) * SLOTS


@dataclass(slots=True)
class SparkRing:
    """Each slot holds the last value in its ten seconds."""

    _slot: array[int] = field(default_factory=_slots)
    """The number of the slot (time / 10 s) that a place holds now."""
    _cpu: array[float] = field(default_factory=_gaps)
    _memory: array[float] = field(default_factory=_gaps)
    _shown: tuple[int, Spark] | None = None
    """The answer for a newest slot, until a value comes."""

    def put(self, at: float, cpu: float, memory: float) -> None:
        """Take the percent at a time in seconds since the epoch."""
        slot = int(at // SLOT_S)
        place = slot % SLOTS
        self._slot[place], self._cpu[place], self._memory[place] = slot, cpu, memory
        self._shown = None

    def read(self, now: float) -> Spark:
        """Return the sixty slots that end now.

        A sample each 10 s drifts over the slots' borders: one that stayed empty, the present one
        too, shows what the slot before holds.
        """
        newest = int(now // SLOT_S)
        if self._shown is None or self._shown[0] != newest:
            self._shown = newest, self._compute(newest)
        return self._shown[1]

    def _compute(self, newest: int) -> Spark:
        places: list[int] = []
        for slot in range(newest - SLOTS + 1, newest + 1):
            place = slot % SLOTS
            if self._slot[place] != slot:
                place = (slot - 1) % SLOTS
                if self._slot[place] != slot - 1:
                    place = -1
            places.append(place)
        return Spark(self._values(self._cpu, places), self._values(self._memory, places))

    @staticmethod
    def _values(values: array[float], places: list[int]) -> list[float | None]:
        return outside(GAP if place < 0 else values[place] for place in places)
