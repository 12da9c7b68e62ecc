"""OPEN payloads: which kinds a side accepts, how each is scheduled and refused (SPEC §4.2)."""

from __future__ import annotations

from typing import Any

import msgspec

from protocol import messages
from protocol.errors import LocalProtocolError, ResetCode
from protocol.frames import MAX_PAYLOAD, Bytes, Class

CLASS_OF: dict[type[messages.Message], Class] = {
    messages.Exec: Class.COMMAND,
    messages.Pty: Class.TERMINAL,
    messages.Transfer: Class.TRANSFER,
    messages.Install: Class.CALL,
    messages.Forward: Class.FORWARD,
    messages.Listen: Class.CALL,
    messages.Report: Class.CALL,
    messages.Metrics: Class.METRICS,
    messages.Renew: Class.CALL,
    messages.Arrival: Class.FORWARD,
    messages.ClientForward: Class.FORWARD,
    messages.ClientListen: Class.CALL,
    messages.ClientArrival: Class.FORWARD,
    messages.ClientShell: Class.TERMINAL,
}
LARGE_WINDOW = {Class.FORWARD: 256 * 1024, Class.TRANSFER: 256 * 1024, Class.TERMINAL: 128 * 1024}
"""Receive windows raised above the initial one at once, in bytes, when the budget allows."""

_ENCODER = msgspec.msgpack.Encoder()


class _Kind(msgspec.Struct):
    """Just the tag of an OPEN, to tell an unknown kind from a malformed one."""

    k: str


_KIND = msgspec.msgpack.Decoder(_Kind)


class OpenRefused(Exception):
    """An OPEN that cannot be taken; answered by RESET with `code` and `reason`."""

    def __init__(self, code: ResetCode, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


def encode(message: messages.Open) -> bytes:
    """The payload of an OPEN.

    Raises:
        LocalProtocolError: the arguments do not fit a frame.
    """
    payload = _ENCODER.encode(message)
    if len(payload) > MAX_PAYLOAD:
        size = len(payload)
        raise LocalProtocolError(f"{size} bytes of arguments: at most {MAX_PAYLOAD} fit an OPEN")
    return payload


class OpenDecoder:
    """Decodes the kinds that one side accepts."""

    def __init__(self, accepts: object) -> None:
        """`accepts` is a Struct or a union of Structs of `messages`; None accepts nothing."""
        self._decoder = None if accepts is None else msgspec.msgpack.Decoder(accepts)
        types: tuple[Any, ...] = ()
        if accepts is not None:
            types = getattr(accepts, "__args__", (accepts,))
        self._kinds = frozenset(kind.__struct_config__.tag for kind in types)

    def decode(self, payload: Bytes) -> messages.Open:
        """The message of an OPEN payload.

        Raises:
            OpenRefused: with UNKNOWN_KIND or PROTOCOL.
        """
        try:
            kind = _KIND.decode(payload).k
            if self._decoder is None or kind not in self._kinds:
                raise OpenRefused(ResetCode.UNKNOWN_KIND, f"unknown kind {kind[:64]!r}")
            opened: messages.Open = self._decoder.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise OpenRefused(ResetCode.PROTOCOL, f"malformed OPEN: {error}") from error
        return opened
