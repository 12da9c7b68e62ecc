"""What a process holds of bytes that came in and nobody has read, and who gives way (SPEC §5.2).

Credit is a promise, and every stream's initial window is promised to everyone: what is promised may
be far more than there is. So what really waits is counted too. When the process holds more than its
limit, the tunnel that holds most loses the stream that holds most. A tunnel that holds little never
gives way and never asks the process.
"""

from __future__ import annotations

from collections.abc import Callable

SPARE_BYTES = 16 * 1024
"""What a tunnel may hold uncounted: an echo, a keystroke, a sample."""
TUNNEL_HELD = 32 * 1024 * 1024
"""256 initial windows, and as much grown beyond them."""


class Holdings:
    """What all tunnels of a process hold beyond their spare bytes."""

    __slots__ = ("_heavy", "held", "limit")

    def __init__(self, limit: int) -> None:
        """`limit` is in bytes."""
        self.limit = limit
        self.held = 0
        self._heavy: set[Holding] = set()

    @property
    def crowded(self) -> bool:
        """Less than an eighth is left."""
        return self.held > self.limit - self.limit // 8

    def charge(self, tunnel: Holding, change: int) -> None:
        """Count what a tunnel holds more or, when negative, less; make room beyond the limit."""
        self.held += change
        if change < 0:
            if tunnel.held <= SPARE_BYTES:
                self._heavy.discard(tunnel)
            return
        self._heavy.add(tunnel)
        while self.held > self.limit and self._heavy:
            heaviest = max(self._heavy, key=lambda holding: holding.held)
            if not heaviest.shed():
                self._heavy.discard(heaviest)


class Holding:
    """What one tunnel holds."""

    __slots__ = ("_process", "held", "shed")

    def __init__(self, process: Holdings | None) -> None:
        """`process` is None for a tunnel that answers for itself alone."""
        self._process = process
        self.held = 0
        self.shed: Callable[[], bool] = lambda: False
        """Reset the stream that holds most; False when there is none. Set by who has streams."""

    @property
    def must_not_open(self) -> bool:
        """The process is crowded, and this tunnel is one of the reasons."""
        crowded = self._process is not None and self._process.crowded
        return crowded and self.held > SPARE_BYTES

    def add(self, size: int) -> None:
        """Count `size` bytes that came in."""
        before = self.held
        self.held = before + size
        if self.held > SPARE_BYTES and self._process is not None:
            self._process.charge(self, self.held - max(before, SPARE_BYTES))
        while self.held > TUNNEL_HELD and self.shed():
            pass

    def remove(self, size: int) -> None:
        """Count `size` bytes that were read, or dropped."""
        before = self.held
        self.held = before - size
        if before > SPARE_BYTES and self._process is not None:
            self._process.charge(self, max(self.held, SPARE_BYTES) - before)
