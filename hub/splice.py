"""Joins two streams of two tunnels: what one peer sends, the other receives.

The rule it guards: the hub holds a bounded piece per direction. Bytes are read from one side (which
gives that peer credit) only after the other side took the piece before, so credit runs end to end.
Each direction ends by itself at FIN; a reset or a lost tunnel on either side ends both, with its
code and reason.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from protocol.aio import Stream
from protocol.errors import ResetCode, StreamReset, TunnelClosed

PIECE_BYTES = 64 * 1024


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
    """Copy both ways until both sides have finished; return what ended it early, if anything did.

    `traffic` counts while it runs. A lost tunnel is reported as UNREACHABLE. Cancelling resets both
    streams.
    """
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(a, b, traffic.sent))
            group.create_task(_copy(b, a, traffic.received))
    except asyncio.CancelledError:
        _reset(a, b, StreamReset(ResetCode.CANCELLED, "the hub ended the connection"))
        raise
    except ExceptionGroup as errors:
        cause = _cause(errors)
        _reset(a, b, cause)
        return cause
    return None


async def _copy(source: Stream, sink: Stream, count: Count) -> None:
    while data := await source.read(PIECE_BYTES):
        await sink.write(data)
        count.size_bytes += len(data)
    count.ended = True
    sink.finish()


def _cause(errors: ExceptionGroup) -> StreamReset:
    """Return the first reset of the group; anything but a reset or a lost tunnel is a fault."""
    for error in errors.exceptions:
        match error:
            case StreamReset():
                return error
            case TunnelClosed():
                return StreamReset(ResetCode.UNREACHABLE, str(error))
    raise errors


def _reset(a: Stream, b: Stream, cause: StreamReset) -> None:
    a.reset(cause.code, cause.reason)
    b.reset(cause.code, cause.reason)
