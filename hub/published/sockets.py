"""`relay`: a browser's WebSocket joined to a published service's.

The rule it guards: two real WebSocket ends parse both sides; one message a direction waits here, of
a bounded size; and the subprotocol, the kind of each message and the code of the end pass as they
are.
"""

from __future__ import annotations

import asyncio
import logging

from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from hub.published.asgi import Call, Message
from hub.published.connect import Unreachable, Wire
from hub.published.headers import to_service
from hub.published.visit import Visit
from hub.shells import until_first
from protocol.errors import StreamReset, TunnelClosed

logger = logging.getLogger(__name__)

MESSAGE_BYTES = 4 * 1024 * 1024
"""Of the service; those of a browser are limited by the server of the pages."""
HANDSHAKE_S = 30.0
GOODBYE_S = 5.0

_NORMAL, _GOING_AWAY, _NO_CODE, _LOST, _NOT_ALLOWED, _FAILED = 1000, 1001, 1005, 1006, 1008, 1011
_SILENT = logging.Logger("websockets.published", logging.CRITICAL)
"""The library logs handshakes, and ours hold the secret path."""


async def relay(wire: Wire, visit: Visit) -> None:
    """Serve one socket until either side ends it, or the entry ends.

    Raises:
        Unreachable, StreamReset, TunnelClosed: before the browser's socket is accepted.
    """
    service = _Service(wire, visit.call.scope["subprotocols"])
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            await service.open(visit)
    except TimeoutError:
        raise Unreachable(504, "the service does not answer the socket's handshake") from None
    browser = _Browser(visit.call)
    await browser.tell({"type": "websocket.accept", "subprotocol": service.subprotocol})
    try:
        await until_first(_speak(service, browser), _listen(service, browser), visit.entry.ended())
    except ExceptionGroup as errors:
        cause = errors.exceptions[0]
        if not isinstance(cause, OSError | StreamReset | TunnelClosed | Unreachable):
            raise
        logger.debug("a socket broke: %s", cause)
        await browser.close(_FAILED, "the connection to the service broke")
    if visit.entry.is_over:
        await browser.close(_NOT_ALLOWED, "the sign-in ended or its rights changed")
    await service.close()


async def _speak(service: _Service, browser: _Browser) -> None:
    """Pass what the service says, until it says goodbye."""
    while (message := await service.hear()) is not None:
        await browser.tell(message)
    await browser.close(*service.goodbye)


async def _listen(service: _Service, browser: _Browser) -> None:
    """Pass what the browser says, until it leaves."""
    while (message := await browser.hear())["type"] == "websocket.receive":
        await service.tell(message)
    await service.close_with(message.get("code", _GOING_AWAY), message.get("reason") or "")


class _Browser:
    def __init__(self, call: Call) -> None:
        self.hear = call.receive
        self.tell = call.send
        self._is_closed = False

    async def close(self, code: int, reason: str) -> None:
        """Close, once; a browser that left already is no fault."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            await self.tell({"type": "websocket.close", "code": code, "reason": reason})
        except OSError as error:
            logger.debug("the browser left: %s", error)


class _Service:
    def __init__(self, wire: Wire, subprotocols: list[str]) -> None:
        self._wire = wire
        self._protocol = ClientProtocol(
            WebSocketURI(False, "service", 80, "/", ""),
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            max_size=MESSAGE_BYTES,
            logger=_SILENT,
        )
        self._events: list[Frame] = []
        self._message = bytearray()
        self._is_text = False

    @property
    def subprotocol(self) -> str | None:
        """The one that the service chose."""
        return self._protocol.subprotocol

    @property
    def goodbye(self) -> tuple[int, str]:
        """Code and reason of the service's end, as they can be told a browser."""
        received, sent = self._protocol.close_rcvd, self._protocol.close_sent
        if received is not None:
            return (_NORMAL if received.code == _NO_CODE else received.code), received.reason
        if sent is not None and sent.code != _LOST:  # it broke a rule, and this is which
            return sent.code, sent.reason
        return _FAILED, "the service broke off"

    async def open(self, visit: Visit) -> None:
        """Shake hands.

        Raises:
            Unreachable: the service does not want a socket there.
        """
        headers = Headers()
        for name, value in to_service(visit.call.headers, visit.place):
            if not name.startswith((b"sec-websocket-", b"content-length")):
                headers[name.decode("latin-1")] = value.decode("latin-1")
        upgrade = self._protocol.connect().headers
        del upgrade["Host"]
        headers.update(upgrade)
        self._protocol.send_request(Request(visit.target.decode("latin-1"), headers))
        await self._flush()
        while self._protocol.state is State.CONNECTING:
            await self._fill()
            error = self._protocol.handshake_exc
            if error is not None:
                raise Unreachable(502, f"the service takes no socket here: {error}") from error

    async def hear(self) -> Message | None:
        """Wait for a whole message; None when the service has ended the socket."""
        while True:
            while self._events:
                frame = self._events.pop(0)
                if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                    message = self._joined(frame)
                    if message is not None:
                        return message
            if self._protocol.state is not State.OPEN:
                return None
            await self._fill()

    async def tell(self, message: Message) -> None:
        """Send a message of the browser."""
        if self._protocol.state is not State.OPEN:
            return
        if message.get("bytes") is not None:
            self._protocol.send_binary(message["bytes"])
        else:
            self._protocol.send_text(message["text"].encode())
        await self._flush()

    async def close_with(self, code: int, reason: str) -> None:
        """Tell the service that the browser left, and how."""
        if self._protocol.state is State.OPEN:
            if code == _NO_CODE:
                self._protocol.send_close()
            else:
                self._protocol.send_close(_GOING_AWAY if code == _LOST else code, reason)
            await self._flush()

    async def close(self) -> None:
        """Say goodbye if nobody did, and give the service a moment to hear it."""
        try:
            async with asyncio.timeout(GOODBYE_S):
                await self.close_with(_GOING_AWAY, "")
                while await self._wire.read():
                    pass
        except (TimeoutError, StreamReset, TunnelClosed, Unreachable) as error:
            logger.debug("the service did not say goodbye: %s", error)

    def _joined(self, frame: Frame) -> Message | None:
        """Add a frame to the message that it is part of; return the message when it is whole."""
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        self._message += frame.data
        if not frame.fin:
            return None
        data, self._message = bytes(self._message), bytearray()
        if not self._is_text:
            return {"type": "websocket.send", "bytes": data}
        try:
            return {"type": "websocket.send", "text": data.decode()}
        except UnicodeDecodeError:
            raise Unreachable(502, "the service sent text that is not UTF-8") from None

    async def _fill(self) -> None:
        data = await self._wire.read()
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        self._events += [e for e in self._protocol.events_received() if isinstance(e, Frame)]
        await self._flush()

    async def _flush(self) -> None:
        if data := b"".join(self._protocol.data_to_send()):
            await self._wire.write(data)
