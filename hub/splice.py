"""Joins two streams of two tunnels: what one peer sends, the other receives.

The rule it guards: credit runs end to end. The peer that sends gets credit only for bytes that the
other tunnel's transport took, so at most one of its windows waits here per direction. Bytes move in
the callback that they came in with, copied once; no task waits between the tunnels. Each direction
ends by itself at FIN; a reset or a lost tunnel on either side ends both, with its code and reason.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from protocol.aio import Stream
from protocol.errors import ProtocolError, ResetCode, StreamReset
from protocol.frames import Blank, Bytes


@dataclass(slots=True)
class Count:
    """Bytes that passed in one direction so far, and whether its sender has finished."""

    size_bytes: int = 0
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that passed so far: `sent` from a to b, `received` from b to a."""

    sent: Count = field(default_factory=Count)
    received: Count = field(default_factory=Count)


async def splice(a: Stream, b: Stream, traffic: Traffic) -> StreamReset | None:
    """Join both until both sides have finished; return what ended it early, if anything did.

    `traffic` counts while it runs. A lost tunnel is reported as UNREACHABLE. Cancelling resets both
    streams.
    """
    outcome: asyncio.Future[StreamReset | None] = asyncio.get_running_loop().create_future()
    near, far = _End(a, traffic.sent, outcome), _End(b, traffic.received, outcome)
    near.other, far.other = far, near
    a.pipe(near)
    b.pipe(far)
    try:
        cause = await outcome
    except asyncio.CancelledError:
        _reset(a, b, StreamReset(ResetCode.CANCELLED, "the hub ended the connection"))
        raise
    if cause is not None:
        _reset(a, b, cause)
    return cause


class _End:
    """One of the two streams: what comes in on it goes out on the other one (a `Sink`)."""

    __slots__ = ("_count", "_outcome", "other", "stream", "waiting")

    other: _End

    def __init__(
        self, stream: Stream, count: Count, outcome: asyncio.Future[StreamReset | None]
    ) -> None:
        self.stream = stream
        self.waiting = 0  # bytes from the other stream that this one has not sent
        self._count = count
        self._outcome = outcome

    def received(self, data: Bytes) -> None:
        size = len(data)
        self._count.size_bytes += size
        other = self.other
        other.waiting += size
        pending = other.stream.push(Blank.around(data))
        if pending != other.waiting:  # else it was told already, or everything waits
            other.drained(pending)

    def drained(self, pending: int) -> None:
        if sent := self.waiting - pending:
            self.waiting = pending
            self.other.stream.consumed(sent)
            if self._count.ended or self.other._count.ended:
                self._end_if_done()

    def finished(self) -> None:
        self._count.ended = True
        self.other.stream.finish()
        self._end_if_done()

    def failed(self, error: ProtocolError) -> None:
        if not self._outcome.done():
            if not isinstance(error, StreamReset):
                error = StreamReset(ResetCode.UNREACHABLE, str(error))
            self._outcome.set_result(error)

    def _end_if_done(self) -> None:
        other = self.other
        ended = self._count.ended and other._count.ended
        passed = ended and not (self.waiting or other.waiting)
        if passed and not self._outcome.done():
            self._outcome.set_result(None)


def _reset(a: Stream, b: Stream, cause: StreamReset) -> None:
    a.reset(cause.code, cause.reason)
    b.reset(cause.code, cause.reason)
