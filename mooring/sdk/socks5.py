"""The proxy's side of a SOCKS5 handshake (RFC 1928), without I/O: bytes in, bytes out.

The rule it guards: nothing of what a program sends is kept beyond the longest handshake there is,
and no bytes crash it. Only CONNECT without a password is served; names are passed on as they are,
for the node to resolve.

    while handshake.destination is None:
        send(handshake.receive(read()))        # Refused: send its answer, then close
    send(reply(Reply.SUCCEEDED))               # once the destination is connected
    forward(handshake.rest)
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

VERSION: Final = 5
NO_PASSWORD: Final = 0x00  # section 3, the methods
NO_ACCEPTABLE_METHOD: Final = 0xFF
CONNECT: Final = 0x01  # section 4, the commands
IPV4, NAME, IPV6 = 0x01, 0x03, 0x04  # section 5, the types of addresses
_ADDRESS_BYTES = {IPV4: 4, IPV6: 16}
_REQUEST = struct.Struct("!BBxB")  # version, command, reserved, type of address
_PORT = struct.Struct("!H")


class Reply(IntEnum):
    """How a request ended (section 6)."""

    SUCCEEDED = 0
    FAILED = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    CONNECTION_REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_NOT_SUPPORTED = 8


def reply(code: Reply) -> bytes:
    """Answer a request; the bound address is left out, as it means nothing here."""
    return bytes((VERSION, code, 0, IPV4)) + bytes(6)


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a program wants to go."""

    host: str
    port: int


class Refused(Exception):
    """A handshake that can't be served; send `answer` (it may be empty) and close."""

    def __init__(self, reason: str, answer: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.answer = answer


class Handshake:
    """One connection's handshake; feed it what comes until `destination` is known."""

    def __init__(self) -> None:
        self._buffer = b""
        self._greeted = False
        self.destination: Destination | None = None

    @property
    def rest(self) -> bytes:
        """What came behind the request already: the first bytes for the destination."""
        return self._buffer

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the program; return what to send.

        Raises:
            Refused: it is not for us.
        """
        self._buffer += data
        answer = b""
        if not self._greeted:
            answer = self._greet()
        if self._greeted and self.destination is None:
            try:
                self.destination = self._request()
            except Refused as error:  # both came at once, both want their answer
                raise Refused(error.reason, answer + error.answer) from None
        return answer

    def _greet(self) -> bytes:
        """Section 3: version, count, methods."""
        if self._buffer and self._buffer[0] != VERSION:
            raise Refused("the program does not speak SOCKS5")
        if len(self._buffer) < 2 or len(self._buffer) < 2 + self._buffer[1]:
            return b""
        methods = self._take(2 + self._buffer[1])[2:]
        if NO_PASSWORD not in methods:
            answer = bytes((VERSION, NO_ACCEPTABLE_METHOD))
            raise Refused("the program insists on a password", answer)
        self._greeted = True
        return bytes((VERSION, NO_PASSWORD))

    def _request(self) -> Destination | None:
        """Section 4: version, command, reserved, type of address, address, port."""
        buffer = self._buffer
        if len(buffer) < _REQUEST.size:
            return None
        version, command, kind = _REQUEST.unpack_from(buffer)
        if version != VERSION:
            raise Refused("the program's request is malformed", reply(Reply.FAILED))
        if command != CONNECT:
            answer = reply(Reply.COMMAND_NOT_SUPPORTED)
            raise Refused("the program wants something else than a connection", answer)
        start, size = _REQUEST.size, _ADDRESS_BYTES.get(kind, 0)
        if kind == NAME:
            if len(buffer) == start:
                return None
            start, size = start + 1, buffer[start]
        elif kind not in _ADDRESS_BYTES:
            answer = reply(Reply.ADDRESS_NOT_SUPPORTED)
            raise Refused("the program's kind of address is unknown", answer)
        if len(buffer) < start + size + _PORT.size:
            return None
        taken = self._take(start + size + _PORT.size)
        return _destination(kind, taken[start : start + size], _PORT.unpack(taken[-2:])[0])

    def _take(self, size: int) -> bytes:
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken


def _destination(kind: int, address: bytes, port: int) -> Destination:
    if kind == NAME:
        host = address.decode("utf-8", "replace")
        usable = host.isprintable() and " " not in host and "�" not in host
    else:
        host, usable = str(ipaddress.ip_address(address)), True
    if not usable or not host or port == 0:
        raise Refused("the program asks for no place that there can be", reply(Reply.FAILED))
    return Destination(host, port)
