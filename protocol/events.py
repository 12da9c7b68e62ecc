"""What a session tells its driver: frozen values in one union, matched exhaustively."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from protocol import messages
from protocol.errors import GoAwayCode, ResetCode
from protocol.frames import Bytes, Hello


@dataclass(frozen=True, slots=True)
class PeerReady:
    """The peer's HELLO came in: streams may be opened."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer opened a stream."""

    stream: int
    message: messages.Open


class DataReceived(msgspec.Struct, frozen=True, gc=False):
    """Bytes on a stream; give `consumed` for them once the application has read them.

    `data` is a view of the message if that was one. A Struct: made for every frame of bulk.
    """

    stream: int
    data: Bytes


@dataclass(frozen=True, slots=True)
class StreamFinished:
    """The peer sends nothing more on this stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class StreamWasReset:
    """The stream is gone, with all that waited on it."""

    stream: int
    code: ResetCode
    reason: str


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """A PONG came back."""

    seconds: float


@dataclass(frozen=True, slots=True)
class PeerGoesAway:
    """The peer ends the session."""

    code: GoAwayCode
    reason: str
    retry_after_s: float


@dataclass(frozen=True, slots=True)
class PeerDead:
    """Nothing came in for too long, or no HELLO in time."""

    reason: str


Event: TypeAlias = (
    PeerReady
    | StreamOpened
    | DataReceived
    | StreamFinished
    | StreamWasReset
    | RoundTrip
    | PeerGoesAway
    | PeerDead
)
