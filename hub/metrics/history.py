"""The last hour of one node: a point each 10 s, packed by five minutes, bounded in bytes.

While somebody watches, the last five minutes are there per second too. A schema that changes
starts a new piece; a question is answered over all pieces, by series name.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from hub.metrics.rows import Packed, Rows
from hub.metrics.series import GAP, NodeSchema, SeriesInfo, outside

KEEP_S = 3600.0
COARSE_LEAST_S = 9.0
"""A sample becomes a coarse point when the last one is older: samples come a little early too."""
PACK_ROWS = 30
"""Five minutes of coarse points."""
FINE_ROWS = 300
PIECES_LIMIT = 64
BYTES_LIMIT = 1024 * 1024
SERIES_LIMIT = 2000
"""Series in an answer, over all schemas of the hour."""
PAUSE_S = 25.0
"""Without a point for longer, a row of gaps says so."""


class History(msgspec.Struct, frozen=True):
    """Values by series: `values[s][i]` is series s at `at[i]`; None is a gap."""

    series: list[SeriesInfo]
    at: list[float]
    """Seconds since the epoch, ascending."""
    values: list[list[float | None]]


@dataclass(slots=True)
class NodeHistory:
    """What one node measured."""

    _open: Rows | None = None
    _packed: deque[Packed] = field(default_factory=deque)
    _fine: Rows | None = None
    _is_watched: bool = False

    def watch(self, watched: bool) -> None:
        """Begin or end to keep points per second."""
        self._is_watched = watched
        if not watched:
            self._fine = None

    def append(self, schema: NodeSchema, at: float, row: array[float]) -> None:
        """Take a sample that is later than the last one."""
        if self._is_watched:
            self._append_fine(schema, at, row)
        if self._open is None or self._open.schema is not schema or len(self._open) >= PACK_ROWS:
            self._pack(at)
            self._open = Rows(schema)
        last = self._last_coarse_at()
        if last is None or at - last >= COARSE_LEAST_S:
            self._open.append(at, row)

    def read(self, since: float) -> History:
        """Return what is known since that time."""
        pieces = list(self._pieces(since))
        series = list(dict.fromkeys(s for piece in reversed(pieces) for s in piece.schema.series))
        del series[SERIES_LIMIT:]
        times, columns = array("d"), [array("f") for _ in series]
        for piece in pieces:
            _join(piece, piece.first_since(since), series, times, columns)
        _show_pauses(times, columns)
        return History(series, times.tolist(), [outside(column) for column in columns])

    def _append_fine(self, schema: NodeSchema, at: float, row: array[float]) -> None:
        if self._fine is None or self._fine.schema is not schema:
            self._fine = Rows(schema)
        self._fine.append(at, row)
        if len(self._fine) > FINE_ROWS * 1.2:
            self._fine.drop(len(self._fine) - FINE_ROWS)

    def _last_coarse_at(self) -> float | None:
        if self._open:
            return self._open.times[-1]
        return self._packed[-1].times[-1] if self._packed else None

    def _pack(self, now: float) -> None:
        """Put the open piece to rest, and forget what is too old or too much."""
        if self._open:
            self._packed.append(self._open.pack())
        size = sum(len(piece.data) for piece in self._packed)
        while self._packed and (
            self._packed[0].times[-1] < now - KEEP_S
            or len(self._packed) > PIECES_LIMIT
            or size > BYTES_LIMIT
        ):
            size -= len(self._packed.popleft().data)

    def _pieces(self, since: float) -> Iterator[Rows]:
        """Give the pieces in the order of time; per second where there is per second."""
        coarse = [piece.unpack() for piece in self._packed if piece.times[-1] >= since]
        coarse += [self._open] if self._open else []
        fine_from = self._fine.times[0] if self._fine else None
        for piece in coarse:
            if fine_from is not None and piece.times[-1] >= fine_from:
                end = piece.first_since(fine_from)
                values = piece.values[: end * piece.schema.width]
                piece = Rows(piece.schema, piece.times[:end], values)
            if piece:
                yield piece
        if self._fine:
            yield self._fine


def _join(
    piece: Rows,
    start: int,
    series: list[SeriesInfo],
    times: array[float],
    columns: list[array[float]],
) -> None:
    """Append a piece's rows from `start` on."""
    count = len(piece) - start
    places = {info: place for place, info in enumerate(piece.schema.series)}
    times.extend(piece.times[start:])
    for info, column in zip(series, columns, strict=True):
        place = places.get(info)
        column.extend([GAP] * count if place is None else piece.column(place, start))


def _show_pauses(times: array[float], columns: list[array[float]]) -> None:
    """Put a row of gaps in the middle of each pause."""
    for index in range(len(times) - 1, 0, -1):
        if times[index] - times[index - 1] > PAUSE_S:
            times.insert(index, (times[index] + times[index - 1]) / 2)
            for column in columns:
                column.insert(index, GAP)
