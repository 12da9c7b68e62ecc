"""Frames: one WebSocket message is one frame, an 8-byte header and a payload (SPEC §3).

Frames are parsed from and written to bytes here and nowhere else. `parse` accepts any bytes and
answers a frame or raises `RemoteProtocolError`; whether a frame is allowed *now* is the session's
business.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from protocol.errors import GoAwayCode, RemoteProtocolError, ResetCode

HEADER = struct.Struct("!BBBxI")  # type u8, flags u8, class u8, reserved u8, stream u32
HEADER_BYTES = HEADER.size
MAX_PAYLOAD = 64 * 1024
MAX_FRAME = HEADER_BYTES + MAX_PAYLOAD
MAX_STREAM = 2**31 - 1
MAX_CREDIT = 2**31 - 1
MAX_REASON = 512  # bytes of UTF-8 in a RESET

_U32 = struct.Struct("!I")
_RESET = struct.Struct("!H")


class Type(IntEnum):
    """The first byte of a frame."""

    HELLO = 1
    OPEN = 2
    DATA = 3
    WINDOW = 4
    RESET = 5
    PING = 6
    PONG = 7
    GOAWAY = 8


class Flag(IntFlag):
    """The second byte of a frame. Unknown bits are ignored."""

    FIN = 0x01
    OPTIONAL = 0x80  # a receiver that does not know the type ignores the frame


FIN = int(Flag.FIN)  # plain numbers where every frame passes: enums cost more than the frame
_DATA = int(Type.DATA)


class Class(IntEnum):
    """The third byte: how the stream is scheduled (SPEC §5.3). Zero is the session itself."""

    SESSION = 0
    CALL = 1
    TERMINAL = 2
    COMMAND = 3
    FORWARD = 4
    METRICS = 5
    TRANSFER = 6

    @classmethod
    def _missing_(cls, value: object) -> Class:
        return cls.TRANSFER


class Hello(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The payload of HELLO: the first frame in each direction (SPEC §4.1)."""

    version: Annotated[int, Meta(ge=1, le=2**15)] = 1
    capabilities: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=64)] = []
    software: Annotated[str, Meta(max_length=64)] = ""
    boot_id: Annotated[str, Meta(max_length=64)] = ""
    """Of the machine; with `epoch` it tells a restarted agent from a copied key."""
    epoch: Annotated[int, Meta(ge=0, le=2**53)] = 0
    """Milliseconds since the epoch at the start of the agent."""
    max_streams: Annotated[int, Meta(ge=0, le=2**16)] = 256
    """How many streams the peer may have open at once."""


class GoAway(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The payload of GOAWAY (SPEC §4.8)."""

    code: Annotated[int, Meta(ge=0, le=2**16)] = 0
    reason: Annotated[str, Meta(max_length=MAX_REASON)] = ""
    retry_after_s: Annotated[float, Meta(ge=0, le=3600)] = 0.0
    """Come back after a random time up to this; 0: by your own back-off."""


_HELLO = msgspec.msgpack.Decoder(Hello)
_GOAWAY = msgspec.msgpack.Decoder(GoAway)
_ENCODER = msgspec.msgpack.Encoder()


class Frame(msgspec.Struct, frozen=True, gc=False):
    """A parsed frame; `payload` is checked only as far as its type says."""

    type: int
    flags: int
    cls: int
    stream: int
    payload: Bytes

    def __str__(self) -> str:
        name = Type(self.type).name if self.type in Type._value2member_map_ else hex(self.type)
        fin = " FIN" if self.flags & Flag.FIN else ""
        return f"{name}{fin} stream={self.stream} {len(self.payload)} B"


Bytes: TypeAlias = bytes | bytearray | memoryview


class Blank(bytearray):
    """A payload with a header's room in front: it becomes a frame without being copied again.

    Whoever sends it gives it away: nobody writes to it afterwards but `data`, once.
    """

    __slots__ = ()

    @classmethod
    def around(cls, payload: Bytes) -> Blank:
        """A copy of `payload` that can become a frame."""
        blank = cls(HEADER_BYTES)
        blank += payload
        return blank

    @property
    def payload(self) -> memoryview:
        """What is behind the room."""
        return memoryview(self)[HEADER_BYTES:]


Payload: TypeAlias = bytes | memoryview | Blank
"""What is sent on a stream; `payload_size` is its length."""


def payload_size(payload: Payload) -> int:
    """How many bytes of a stream `payload` is."""
    return len(payload) - HEADER_BYTES if type(payload) is Blank else len(payload)


def parse(message: Bytes) -> Frame:
    """Split a message into header and payload; of a view the payload is a view.

    Raises:
        RemoteProtocolError: shorter than a header, longer than `MAX_FRAME`, or a stream id above
            2**31 - 1.
    """
    size = len(message)
    if size < HEADER_BYTES:
        raise RemoteProtocolError(f"a frame of {size} bytes is shorter than its header")
    if size > MAX_FRAME:
        raise RemoteProtocolError(f"a frame of {size} bytes is longer than {MAX_FRAME}")
    kind, flags, cls, stream = HEADER.unpack_from(message)
    if stream > MAX_STREAM:
        raise RemoteProtocolError(f"stream id {stream} is out of range")
    return Frame(kind, flags, cls, stream, message[HEADER_BYTES:])


def data(stream: int, cls: int, payload: Payload, *, fin: bool = False) -> bytes | bytearray:
    """A DATA frame; `payload` is at most `MAX_PAYLOAD` bytes. A blank becomes the frame."""
    if type(payload) is Blank:
        HEADER.pack_into(payload, 0, _DATA, FIN if fin else 0, cls, stream)
        return payload
    return b"".join((HEADER.pack(_DATA, FIN if fin else 0, cls, stream), payload))


def open_stream(stream: int, cls: int, payload: bytes) -> bytes:
    """An OPEN frame around an encoded `Open` message."""
    return HEADER.pack(Type.OPEN, 0, cls, stream) + payload


def window(stream: int, credit: int) -> bytes:
    """A WINDOW frame: `credit` more bytes may be sent on `stream`."""
    return HEADER.pack(Type.WINDOW, 0, 0, stream) + _U32.pack(credit)


def reset(stream: int, code: ResetCode, reason: str = "") -> bytes:
    """A RESET frame; the reason is cut to `MAX_REASON` bytes of UTF-8."""
    text = reason.encode("utf-8", "replace")[:MAX_REASON]
    return HEADER.pack(Type.RESET, 0, 0, stream) + _RESET.pack(code) + text


def ping(opaque: bytes) -> bytes:
    """A PING frame with 8 bytes that come back in the PONG."""
    return HEADER.pack(Type.PING, 0, 0, 0) + opaque


def pong(opaque: bytes) -> bytes:
    """The answer to a PING."""
    return HEADER.pack(Type.PONG, 0, 0, 0) + opaque


def hello(body: Hello) -> bytes:
    """A HELLO frame."""
    return HEADER.pack(Type.HELLO, 0, 0, 0) + _ENCODER.encode(body)


def goaway(body: GoAway) -> bytes:
    """A GOAWAY frame."""
    return HEADER.pack(Type.GOAWAY, 0, 0, 0) + _ENCODER.encode(body)


def parse_window(frame: Frame) -> int:
    """The credit of a WINDOW frame, 1 to `MAX_CREDIT` bytes."""
    if len(frame.payload) != _U32.size:
        raise RemoteProtocolError("a WINDOW payload is 4 bytes")
    credit: int = _U32.unpack(frame.payload)[0]
    if not 1 <= credit <= MAX_CREDIT:
        raise RemoteProtocolError(f"a WINDOW of {credit} bytes is out of range")
    return credit


def parse_reset(frame: Frame) -> tuple[ResetCode, str]:
    """Code and reason of a RESET frame."""
    if not _RESET.size <= len(frame.payload) <= _RESET.size + MAX_REASON:
        raise RemoteProtocolError("a RESET payload is a 2-byte code and at most 512 bytes of text")
    (code,) = _RESET.unpack_from(frame.payload)
    return ResetCode(code), str(frame.payload[_RESET.size :], "utf-8", "replace")


def parse_ping(frame: Frame) -> bytes:
    """The opaque 8 bytes of a PING or PONG."""
    if len(frame.payload) != 8:
        raise RemoteProtocolError("a PING or PONG payload is 8 bytes")
    return bytes(frame.payload)


def parse_hello(frame: Frame) -> Hello:
    """The body of a HELLO frame."""
    try:
        return _HELLO.decode(frame.payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"malformed HELLO: {error}") from error


def parse_goaway(frame: Frame) -> tuple[GoAwayCode, GoAway]:
    """Code and body of a GOAWAY frame."""
    try:
        body = _GOAWAY.decode(frame.payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RemoteProtocolError(f"malformed GOAWAY: {error}") from error
    return GoAwayCode(body.code), body
