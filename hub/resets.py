"""How a refusal of the hub is told to whoever opened a stream: the reset for each error."""

from __future__ import annotations

from hub.errors import HubError, NodeOffline, NotFound, Unavailable
from protocol.aio import ResetCode, StreamReset

_CODES: dict[type[HubError], ResetCode] = {
    NotFound: ResetCode.NOT_FOUND,
    NodeOffline: ResetCode.UNREACHABLE,
    Unavailable: ResetCode.OVERLOADED,
}
"""Others are refusals."""


def reset_of(error: HubError) -> StreamReset:
    """Return the reset that says what `error` says."""
    return StreamReset(_CODES.get(type(error), ResetCode.REFUSED), str(error))
