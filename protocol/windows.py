"""Credit-based flow control, one window per stream and direction (SPEC §5.1, §5.2).

The receiver gives credit back only for bytes that the application has *read*. A window is doubled,
at most once per round trip, while it is smaller than what is read in two round trips: beyond that
it would only queue. Near peers need no larger window than the first, but fewer, larger pieces cost
both sides less: it is doubled while its stream has the tunnel for itself, where nobody waits behind
it, and shrinks at once when another one shares it.

The tunnel's and the process's `Budget` bound what is promised beyond the initial windows; the
initial ones are promised to every stream, so `Holdings` bounds what really waits, of all windows.
"""

from __future__ import annotations

from protocol.errors import RemoteProtocolError
from protocol.frames import MAX_CREDIT
from protocol.holdings import Holdings

INITIAL_WINDOW = (
    64 * 1024
)  # bytes; the same for every stream, so that 256 of them fit a tunnel's budget
MAX_WINDOW = 8 * 1024 * 1024
NEAR_S = 0.001  # a shorter round trip is the machines' own delay, not that of a link
NEAR_TURN_S = 0.004  # for a near peer that is alone, what is read in this time is worth a window
LARGE = 1024 * 1024  # bytes; from here on credit goes back in smaller parts of a window
MEASURE_S = 0.01  # the shortest time over which a stream's rate means something
SLACK = 1024  # bytes
TUNNEL_BUDGET = 16 * 1024 * 1024
PROCESS_BUDGET = 512 * 1024 * 1024


class Budget:
    """Bytes of receive window that may be promised beyond the initial ones."""

    __slots__ = ("_parent", "holdings", "limit", "used")

    def __init__(self, limit: int, parent: Budget | None = None) -> None:
        self.limit = limit
        self.used = 0
        self._parent = parent
        self.holdings: Holdings = Holdings(limit) if parent is None else parent.holdings

    def reserve(self, size: int) -> bool:
        """Take `size` bytes here and in every parent, or nothing."""
        if self.used + size > self.limit:
            return False
        if self._parent is not None and not self._parent.reserve(size):
            return False
        self.used += size
        return True

    def take(self, size: int) -> None:
        """Take `size` bytes here and in every parent, beyond the limits if need be."""
        self.used += size
        if self._parent is not None:
            self._parent.take(size)

    def release(self, size: int) -> None:
        """Give back what `reserve` or `take` took."""
        self.used -= size
        if self._parent is not None:
            self._parent.release(size)


class SendWindow:
    """How many bytes the peer still allows us to send on one stream."""

    __slots__ = ("credit",)

    def __init__(self) -> None:
        self.credit = INITIAL_WINDOW

    def add(self, credit: int) -> None:
        """Take a WINDOW frame's credit.

        Raises:
            RemoteProtocolError: the sum would pass 2**31 - 1.
        """
        if self.credit + credit > MAX_CREDIT:
            raise RemoteProtocolError("WINDOW frames add up to more than 2**31 - 1 bytes")
        self.credit += credit


class ReceiveWindow:
    """How many bytes the peer may still send us, and when to give credit back."""

    __slots__ = (
        "_budget", "_first", "_near_piece", "_piece", "_read", "_read_since", "_unreturned",
        "credit", "size",
    )  # fmt: skip

    def __init__(self, budget: Budget, now: float) -> None:
        self.credit = INITIAL_WINDOW
        self._unreturned = 0
        self._first = INITIAL_WINDOW
        self.size = 0
        self._resize(INITIAL_WINDOW)
        self._budget = budget
        self._read = 0
        self._read_since = now

    def received(self, size: int) -> bool:
        """Count `size` bytes that came in; False when the peer had no credit for them."""
        if size > self.credit:
            return False
        self.credit -= size
        return True

    def begin(self, size: int) -> int:
        """Make the first window larger, if the budget allows; return the credit to send, or 0."""
        if not self._grow(size - self.size):
            return 0
        self._first = size
        credit, self._unreturned = self._unreturned, 0
        self.credit += credit
        return credit

    def consumed(self, size: int, now: float, rtt_s: float, *, alone: bool = False) -> int:
        """Count `size` bytes that the application has read; return the credit to send, or 0.

        Credit goes back in pieces of half a window, of a large one a quarter, to a near peer three
        quarters, or just so much less that frames of a little below 64 KiB, which senders make,
        add up to it.

        Args:
            size: bytes.
            now: seconds.
            rtt_s: the shortest round trip of the connection; 0: not known yet, the window stays.
            alone: no other stream of the tunnel has data.
        """
        self._unreturned += size
        self._read += size
        is_near = 0.0 < rtt_s < NEAR_S
        if is_near and not alone and self.size > self._first:
            self._shrink()
        if self._unreturned < (self._near_piece if is_near else self._piece):
            return 0
        elapsed = now - self._read_since
        if elapsed >= max(rtt_s, MEASURE_S):
            worth_s, limit = (2 * rtt_s, MAX_WINDOW)
            if is_near:
                worth_s, limit = (NEAR_TURN_S if alone else 0.0, 2 * self._first)
            if self.size * elapsed < self._read * worth_s and 2 * self.size <= limit:
                self._grow(self.size)
            self._read = 0
            self._read_since = now
        credit, self._unreturned = self._unreturned, 0
        self.credit += credit
        return credit

    def close(self) -> None:
        """Give the budget back."""
        self._budget.release(self.size - INITIAL_WINDOW)
        self.size = INITIAL_WINDOW

    def _grow(self, extra: int) -> bool:
        """Promise `extra` bytes more with the next credit, if the budget allows."""
        if extra <= 0 or not self._budget.reserve(extra):
            return False
        self._resize(self.size + extra)
        self._unreturned += extra
        return True

    def _shrink(self) -> None:
        """Go back to the first size: what was promised beyond it is kept back from what is read."""
        excess = self.size - self._first
        self._resize(self._first)
        self._unreturned -= excess
        self._budget.release(excess)

    def _resize(self, size: int) -> None:
        self.size = size
        self._piece = size // (4 if size >= LARGE else 2) - SLACK
        self._near_piece = 3 * size // 4 - SLACK
