"""What a TLS ClientHello asks for, read without consuming it (RFC 8446 §4.1.2, RFC 7301).

The listener peeks at the first bytes of a connection and routes by ALPN before any TLS state
exists, because a server can't change whether it demands a client certificate once the handshake
runs. The bytes are hostile: every length is checked, nothing is trusted but its own bounds.
"""

from __future__ import annotations

MAX_HELLO = 16 * 1024  # bytes; larger ones are routed as if they named no protocol
_HANDSHAKE = 0x16
_CLIENT_HELLO = 0x01
_ALPN = 16


class NotTls(ValueError):
    """The connection does not begin with a TLS handshake."""


class Incomplete(ValueError):
    """More bytes are needed."""


def alpn_protocols(peeked: bytes) -> tuple[bytes, ...]:
    """The ALPN names that a ClientHello offers, in its order; empty when it offers none.

    Raises:
        NotTls: this is something else.
        Incomplete: the hello is longer than what was peeked.
    """
    if peeked[:1] != bytes([_HANDSHAKE]):
        raise NotTls
    body = _Reader(_handshake(peeked))
    body.skip(2 + 32)  # legacy_version, random
    body.vector(1)  # legacy_session_id
    body.vector(2)  # cipher_suites
    body.vector(1)  # legacy_compression_methods
    if not body.left:
        return ()
    extensions = _Reader(body.vector(2))
    while extensions.left:
        kind = extensions.number(2)
        data = extensions.vector(2)
        if kind == _ALPN:
            return _names(_Reader(_Reader(data).vector(2)))
    return ()


def _handshake(peeked: bytes) -> bytes:
    """The ClientHello's body, out of the records that carry it."""
    records, message = _Reader(peeked, Incomplete), b""
    while len(message) < 4 or len(message) < 4 + int.from_bytes(message[1:4], "big"):
        if records.number(1) != _HANDSHAKE:
            raise NotTls
        records.skip(2)  # legacy_record_version
        message += records.vector(2)
        if message[:1] != bytes([_CLIENT_HELLO]):
            raise NotTls
    return message[4 : 4 + int.from_bytes(message[1:4], "big")]


def _names(reader: _Reader) -> tuple[bytes, ...]:
    names = []
    while reader.left:
        names.append(reader.vector(1))
    return tuple(names)


class _Reader:
    """Reads big-endian numbers and length-prefixed vectors; raises `short` past the end."""

    def __init__(self, data: bytes, short: type[ValueError] = NotTls) -> None:
        self._data = data
        self._at = 0
        self._short = short

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        if size > self.left:
            raise self._short
        self._at += size
        return self._data[self._at - size : self._at]

    def skip(self, size: int) -> None:
        self.take(size)

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, prefix: int) -> bytes:
        return self.take(self.number(prefix))
