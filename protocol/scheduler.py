"""Which stream sends next: sparse streams first, then deficit round robin (SPEC §5.3).

A stream that becomes busy joins the *sparse* list with one quantum; when it has used it up it moves
to the *bulk* list, where streams with a backlog share by weight. So a keystroke through a forward
overtakes every backlog, whatever the kind of its stream, and no stream starves (the scheme of
FQ-CoDel, RFC 8290 §4.2, without the delay control).
"""

from __future__ import annotations

from collections import deque

from protocol.frames import MAX_PAYLOAD, Class
from protocol.streams import StreamState

SHARED_PAYLOAD = 16 * 1024  # bytes per frame while another stream waits: 13 ms at 10 Mbit/s
WEIGHT: dict[Class, int] = {
    Class.SESSION: 8,
    Class.CALL: 8,
    Class.TERMINAL: 8,
    Class.COMMAND: 4,
    Class.FORWARD: 4,
    Class.METRICS: 2,
    Class.TRANSFER: 1,
}
_QUANTUM = {cls: weight * SHARED_PAYLOAD // 2 for cls, weight in WEIGHT.items()}


class Scheduler:
    """The streams that have something to send and credit to send it."""

    __slots__ = ("_bulk", "_sparse")

    def __init__(self) -> None:
        self._sparse: deque[StreamState] = deque()
        self._bulk: deque[StreamState] = deque()

    def __bool__(self) -> bool:
        return bool(self._sparse or self._bulk)

    def add(self, stream: StreamState) -> None:
        """Note that `stream` may have become able to send."""
        if not stream.scheduled and stream.can_send:
            stream.scheduled = True
            stream.deficit = _QUANTUM[stream.cls]
            self._sparse.append(stream)

    def next(self) -> tuple[StreamState, int] | None:
        """The stream to serve and how many payload bytes it may send now, or None."""
        while queue := self._sparse or self._bulk:
            stream = queue[0]
            if not stream.can_send:
                queue.popleft()
                # One round in the bulk list: a backlog that empties for a moment is not sparse.
                if queue is self._sparse and self._bulk:
                    self._bulk.append(stream)
                else:
                    stream.scheduled = False
            elif stream.deficit <= 0:
                stream.deficit += _QUANTUM[stream.cls]
                queue.popleft()
                self._bulk.append(stream)
            else:
                alone = len(self._sparse) + len(self._bulk) == 1
                return stream, MAX_PAYLOAD if alone else SHARED_PAYLOAD
        return None

    @staticmethod
    def sent(stream: StreamState, size: int) -> None:
        """Charge `stream` for a frame of `size` payload bytes."""
        stream.deficit -= max(size, 1)

    def remove(self, stream: StreamState) -> None:
        """Forget a stream that ended."""
        if stream.scheduled:
            stream.scheduled = False
            for queue in (self._sparse, self._bulk):
                if stream in queue:
                    queue.remove(stream)
