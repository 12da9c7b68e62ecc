"""What is kept of a command's output: the head, the tail of the rest, and the exact count of bytes.

The rule it guards: memory per stream never exceeds HEAD_BYTES + TAIL_BYTES, whatever a node sends,
and what was left out between the two is always counted. Readers remember an offset and ask for what
came since; one who fell behind the tail learns how many bytes he missed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

HEAD_BYTES = 64 * 1024
TAIL_BYTES = 192 * 1024


@dataclass(frozen=True, slots=True)
class Piece:
    """Output from some offset on: `skipped` bytes that are gone, then `data`."""

    skipped: int
    data: bytes


@dataclass(slots=True)
class Kept:
    """One stream's kept output; `total` counts all bytes, kept or not."""

    head: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)
    total: int = 0

    @classmethod
    def restored(cls, head: bytes, tail: bytes, total: int) -> Kept:
        """Make one from what was stored; `total` may count bytes that were never received."""
        return cls(bytearray(head), bytearray(tail), max(total, len(head) + len(tail)))

    def append(self, offset: int, data: bytes) -> None:
        """Take bytes at an absolute offset; what is replayed is dropped, a gap is left out."""
        if offset > self.total:
            self.tail.clear()
            self.total = offset
        fresh = memoryview(data)[self.total - offset :]
        if self.total == len(self.head):
            room = HEAD_BYTES - len(self.head)
            self.head += fresh[:room]
            self.total += len(fresh[:room])
            fresh = fresh[room:]
        self.tail += fresh
        self.total += len(fresh)
        del self.tail[:-TAIL_BYTES]

    def since(self, offset: int, limit: int) -> Piece:
        """Return at most `limit` bytes from `offset` on, or from the first kept byte after it."""
        if offset < len(self.head):
            return Piece(0, bytes(self.head[offset : offset + limit]))
        start = self.total - len(self.tail)
        skipped = max(0, start - offset)
        begin = max(0, offset - start)
        return Piece(skipped, bytes(self.tail[begin : begin + limit]))


def as_text(head: bytes, tail: bytes, left_out: int) -> str:
    """Decode as UTF-8 with replacement, with one line for what is left out between."""
    if not left_out:
        return (head + tail).decode("utf-8", "replace")
    return (
        head.decode("utf-8", "replace") + left_out_line(left_out) + tail.decode("utf-8", "replace")
    )


def left_out_line(number: int) -> str:
    """Return the line that stands for `number` bytes that are not shown."""
    return f"\n… {number} bytes left out …\n"
