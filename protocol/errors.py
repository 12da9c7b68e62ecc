"""Exceptions and codes of the protocol.

ProtocolError
├── LocalProtocolError      this side called something it may not call now
├── RemoteProtocolError     the peer violated SPEC; the session ends with GOAWAY
├── StreamReset             the peer (or the session) ended one stream
└── TunnelClosed            the session is gone, and all its streams with it
"""

from __future__ import annotations

from enum import IntEnum


class ResetCode(IntEnum):
    """Why a stream was reset (SPEC §4.5). Unknown codes are read as INTERNAL."""

    INTERNAL = 0
    PROTOCOL = 1
    FLOW_CONTROL = 2
    REFUSED = 3
    UNKNOWN_KIND = 4
    CANCELLED = 5
    TIMEOUT = 6
    OVERLOADED = 7
    NOT_FOUND = 8
    UNREACHABLE = 9
    LOST = 10

    @classmethod
    def _missing_(cls, value: object) -> ResetCode:
        return cls.INTERNAL


class GoAwayCode(IntEnum):
    """Why a session ends (SPEC §4.8). Unknown codes are read as INTERNAL."""

    NORMAL = 0
    PROTOCOL = 1
    FLOW_CONTROL = 2
    FLOOD = 3
    SHUTDOWN = 4
    REPLACED = 5
    REVOKED = 6
    TIMEOUT = 7
    VERSION = 8
    INTERNAL = 9

    @classmethod
    def _missing_(cls, value: object) -> GoAwayCode:
        return cls.INTERNAL


class ProtocolError(Exception):
    """Base of all errors of this package."""


class LocalProtocolError(ProtocolError):
    """This side misused the session; nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer violated the specification; `code` goes into the GOAWAY."""

    def __init__(self, reason: str, code: GoAwayCode = GoAwayCode.PROTOCOL) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class StreamReset(ProtocolError):
    """A stream was reset by the peer."""

    def __init__(self, code: ResetCode, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return self.reason or f"the stream was reset: {self.code.name.lower()}"


class TunnelClosed(ProtocolError):
    """The tunnel went away; every stream on it ended."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason or "the tunnel is closed"
