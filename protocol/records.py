"""Records: messages inside a stream, each a u32 length and one msgpack Struct (SPEC §6.2).

`RecordReader` is fed bytes in any split and gives whole records; it holds at most one record.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import Any, Generic, TypeVar

import msgspec

from protocol.errors import RemoteProtocolError
from protocol.messages import Message

MAX_RECORD = 256 * 1024
"""Bytes of one record: a report of 1,000 packages fits, a piece of data is at most 64 KiB."""

_LENGTH = struct.Struct("!I")
_ENCODER = msgspec.msgpack.Encoder()
T = TypeVar("T")


def encode(message: Message) -> bytes:
    """One record, ready to be written to a stream."""
    buffer = bytearray(_LENGTH.size)
    _ENCODER.encode_into(message, buffer, _LENGTH.size)
    _LENGTH.pack_into(buffer, 0, len(buffer) - _LENGTH.size)
    return bytes(buffer)


@cache
def _decoder_of(receives: object) -> msgspec.msgpack.Decoder[Any]:
    """One for each type: making it costs more than a record."""
    return msgspec.msgpack.Decoder(receives)


class RecordReader(Generic[T]):
    """Turns a stream's bytes into messages of the type given."""

    def __init__(self, receives: object) -> None:
        """`receives` is a Struct or a union; anything else on the stream is a violation."""
        self._decoder: msgspec.msgpack.Decoder[T] = _decoder_of(receives)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[T]:
        """Take bytes; iterate over the records that are whole now.

        Raises:
            RemoteProtocolError: a record too long, malformed, or of a type that is not expected
                here.
        """
        self._buffer += data
        start, size = 0, len(self._buffer)
        view = memoryview(self._buffer)
        try:
            while size - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(view, start)
                if length > MAX_RECORD:
                    raise RemoteProtocolError(f"a record of {length} bytes: at most {MAX_RECORD}")
                end = start + _LENGTH.size + length
                if end > size:
                    break
                with view[start + _LENGTH.size : end] as record:
                    message = self._decode(record)
                yield message
                start = end
        finally:
            view.release()
            del self._buffer[:start]

    def _decode(self, record: memoryview) -> T:
        try:
            return self._decoder.decode(record)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteProtocolError(f"malformed record: {error}") from error

    @property
    def mid_record(self) -> bool:
        """Whether the bytes so far end inside a record."""
        return bool(self._buffer)
