"""Sent frames kept until the peer has them, so that a session outlives its connection (SPEC §4.9).

Frames of streams are numbered by counting, on both sides. What the peer has not acknowledged is
kept within a budget; when that is spent, the stream that holds most of it gives up its own, and is
reset if the connection is cut before the peer caught up. OPEN and RESET are kept before all else:
without them the two sides would disagree about which streams there are, so a peer that lets too
many of them pile up can't resume until it has acknowledged them.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import TypeAlias

from protocol.errors import RemoteProtocolError
from protocol.frames import Type
from protocol.windows import Budget

REPLAY_BUDGET = 4 * 1024 * 1024  # bytes per tunnel, inside the process's budget
MARKS_BUDGET = REPLAY_BUDGET // 4  # bytes of OPEN and RESET, beyond the process's budget if need be
ENTRY_BYTES = 128  # what a kept frame costs beside its own bytes
Sent: TypeAlias = bytes | bytearray
_OPEN, _RESET = int(Type.OPEN), int(Type.RESET)
_MARKS = (_OPEN, _RESET)


@dataclass(frozen=True, slots=True)
class Resumption:
    """What follows from how far the peer is."""

    broken: set[int]
    """Streams that can't continue."""
    told: set[int]
    """Those among them that the peer has to be told of, by RESET."""
    again: list[tuple[int, Sent]]
    """Frames to send again, in order, each with its stream."""


class Replay:
    """The frames of streams that one side sent and the other has not acknowledged."""

    __slots__ = (
        "_acknowledged", "_budget", "_incomplete", "_kept", "_marks_bytes", "_sent", "_unkept",
    )  # fmt: skip

    def __init__(self, budget: Budget) -> None:
        """`budget` is this tunnel's own."""
        self._budget = budget
        self._sent = 0
        self._acknowledged = 0
        self._marks_bytes = 0
        self._unkept = 0  # number of the last frame that nothing is kept of, for OPENs and RESETs
        self._kept: deque[tuple[int, int, Sent]] = deque()
        self._incomplete: dict[int, int] = {}  # stream: number of its last frame that is not kept

    @property
    def is_possible(self) -> bool:
        """Whether the session can go on over another connection now."""
        return self._acknowledged >= self._unkept

    def sent(self, stream_id: int, frame: Sent) -> None:
        """Count a frame of a stream that goes out, and keep it if there is room."""
        self._sent += 1
        cost = len(frame) + ENTRY_BYTES
        is_mark = frame[0] in _MARKS
        possible = self._acknowledged >= self._unkept
        if not possible or (is_mark and self._marks_bytes + cost > MARKS_BUDGET):
            self.clear()
            self._unkept = self._sent
            return
        if is_mark:
            self._marks_bytes += cost
            self._budget.take(cost)
        elif stream_id in self._incomplete or not self._make_room(stream_id, cost):
            self._incomplete[stream_id] = self._sent
            return
        self._kept.append((self._sent, stream_id, frame))

    def acknowledged(self, count: int) -> bool:
        """The peer has the first `count` frames; False when that is no news.

        Raises:
            RemoteProtocolError: it can't.
        """
        if not self._acknowledged <= count <= self._sent:
            raise RemoteProtocolError(f"frame {count} of {self._sent} was acknowledged")
        news = count > self._acknowledged
        self._acknowledged = count
        kept, freed = self._kept, 0
        while kept and kept[0][0] <= count:
            frame = kept.popleft()[2]
            freed += len(frame) + ENTRY_BYTES
            if frame[0] in _MARKS:
                self._marks_bytes -= len(frame) + ENTRY_BYTES
        self._budget.release(freed)
        if self._incomplete:
            self._incomplete = {
                stream: last for stream, last in self._incomplete.items() if last > count
            }
        return news

    def resume(self, count: int) -> Resumption:
        """Begin again after the `count` frames that the peer has; both sides count on from there.

        Raises:
            RemoteProtocolError: the peer can't have so many.
        """
        self.acknowledged(count)
        broken = set(self._incomplete)
        unknown, ended = set(), set()
        for _, stream, frame in self._kept:
            if stream in broken and frame[0] == _OPEN:
                unknown.add(stream)
            elif stream in broken and frame[0] == _RESET:
                ended.add(stream)
        again = [
            (stream, frame)
            for _, stream, frame in self._kept
            if stream not in broken or (frame[0] == _RESET and stream not in unknown)
        ]
        self.clear()
        self._sent = count
        return Resumption(broken, broken - unknown - ended, again)

    def clear(self) -> None:
        """Keep nothing any more."""
        self._budget.release(self._budget.used)
        self._marks_bytes = 0
        self._kept.clear()
        self._incomplete.clear()

    def _make_room(self, stream_id: int, cost: int) -> bool:
        """Reserve `cost`; False when the stream itself holds most and gave up its own."""
        while not self._budget.reserve(cost):
            largest = self._largest()
            if largest is None:
                return False
            self._give_up(largest)
            if largest == stream_id:
                return False
        return True

    def _largest(self) -> int | None:
        """The stream that keeps most of what may be given up."""
        sizes: Counter[int] = Counter()
        for _, stream, frame in self._kept:
            if frame[0] not in _MARKS:
                sizes[stream] += len(frame) + ENTRY_BYTES
        return sizes.most_common(1)[0][0] if sizes else None

    def _give_up(self, stream_id: int) -> None:
        kept: deque[tuple[int, int, Sent]] = deque()
        freed = 0
        for entry in self._kept:
            number, stream, frame = entry
            if stream == stream_id and frame[0] not in _MARKS:
                self._incomplete[stream] = number
                freed += len(frame) + ENTRY_BYTES
            else:
                kept.append(entry)
        self._kept = kept
        self._budget.release(freed)
