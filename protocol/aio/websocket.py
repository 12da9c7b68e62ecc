"""Tunnels over real WebSockets, by picows: one binary message is one frame.

`connect_websocket` dials; `accept_websocket` makes the asyncio protocol for one accepted socket.
picows reads without copying and writes through aiofastnet's TLS: half the CPU per relayed byte of
what WebSockets in pure Python take.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from multidict import CIMultiDict
from picows import (
    WSCloseCode,
    WSFrame,
    WSHandshakeError,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    WSUpgradeResponseWithListener,
    ws_connect,
)
from picows.picows import WSAutoPingStrategy, WSProtocol  # type: ignore[attr-defined]  # a cdef class

from protocol.aio.tunnel import TRANSPORT_HIGH, Tunnel
from protocol.frames import MAX_FRAME

SUBPROTOCOL = "mooring.v1"
NOTSENT_LOWAT = 128 * 1024  # bytes the kernel may hold unsent; more would hide from the scheduler
RESUME_HEADER = "Mooring-Resume"
"""In the request: which session the dialler would like to go on with; in the answer: granted."""
UPGRADE_TIMEOUT_S = 10.0
TLS_BUFFER = 5 * (
    16 * 1024 + 64
)  # bytes, each way: a frame's records. The scheduler can't see them
USER_TIMEOUT_MS = 35_000  # the kernel gives up on a peer that takes nothing for so long
LOOK_EVERY_S = 1.0  # while frames come in; else a reset is noticed when something is sent
READ_BUFFER = 4 * 1024  # grows to a frame's size on demand: idle tunnels stay small

_BINARY = WSMsgType.BINARY  # a plain name where every frame passes
_wire_log = logging.getLogger("picows")
_wire_log.setLevel(logging.ERROR)  # it warns at every back-pressure


def _is_news(record: logging.LogRecord) -> bool:
    """Not aiofastnet's word on a failed handshake: the error of whoever dialled says it."""
    return not record.getMessage().startswith("SSL handshake failed")


logging.getLogger("asyncio").addFilter(_is_news)


class ConnectRefused(Exception):
    """The other side answered the upgrade with an HTTP error."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail

    def __str__(self) -> str:
        return self.detail or f"the hub answered with HTTP status {self.status}"


@dataclass(frozen=True, slots=True)
class Request:
    """An upgrade request, with the peer's certificate (DER) when TLS demanded one."""

    path: str
    headers: CIMultiDict[str]
    certificate: bytes | None
    address: str

    @property
    def resume(self) -> bytes:
        """The session that the dialler would like to go on with; empty: none."""
        try:
            return bytes.fromhex(self.headers.get(RESUME_HEADER, "")[:128])
        except ValueError:
            return b""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The answer to a request that gets no tunnel."""

    status: int
    detail: str


class WebSocketTransport:
    """A `Transport` over a picows connection."""

    __slots__ = ("_lower", "_websocket")

    def __init__(self, websocket: WSTransport) -> None:
        self._websocket = websocket
        self._lower = websocket.underlying_transport

    def send(self, message: bytes | bytearray) -> None:
        """Send one binary message."""
        self._websocket.send(_BINARY, message)

    def buffered(self) -> int:
        """Bytes that wait in user space."""
        return self._lower.get_write_buffer_size()

    def close(self) -> None:
        """Send a close frame and close behind what is buffered."""
        self._websocket.send_close(WSCloseCode.OK)
        self._websocket.disconnect()

    def abort(self) -> None:
        """Drop the connection."""
        self._websocket.disconnect(graceful=False)


class _TunnelListener(WSListener):
    """Passes picows' callbacks to a tunnel, for as long as it is carried by this connection."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel
        self._carrier: WebSocketTransport | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        lower = transport.underlying_transport
        lower.set_write_buffer_limits(high=TRANSPORT_HIGH - 1, low=TRANSPORT_HIGH // 4)
        raw = lower.get_extra_info("socket")
        with suppress(OSError):  # it may be gone already
            if raw is not None and hasattr(socket, "TCP_NOTSENT_LOWAT"):
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
            if raw is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
                raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        self._carrier = WebSocketTransport(transport)
        self._tunnel.attach(self._carrier)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if self._carrier is None or not self._tunnel.carried_by(self._carrier):
            return
        if frame.msg_type is _BINARY and frame.fin:
            self._tunnel.received(frame.get_payload_as_memoryview())
        elif frame.msg_type is WSMsgType.CLOSE:
            transport.send_close(WSCloseCode.OK)
            transport.disconnect()
        elif frame.msg_type in (WSMsgType.PING, WSMsgType.PONG):
            # Answered only to a peer that takes the answers: they may not pile up here.
            if frame.msg_type is WSMsgType.PING and not self._waiting(transport):
                transport.send_pong(frame.get_payload_as_bytes())
            self._tunnel.noise()
        else:
            transport.send_close(WSCloseCode.UNSUPPORTED_DATA)
            transport.disconnect()

    @staticmethod
    def _waiting(transport: WSTransport) -> int:
        return int(transport.underlying_transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._tunnel.writable()

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._carrier is not None:
            self._tunnel.lost(self._carrier)


async def connect_websocket(
    tunnel: Tunnel,
    url: str,
    context: ssl.SSLContext,
    *,
    previous: Tunnel | None = None,
    headers: Mapping[str, str] | None = None,
    proxy: str | None = None,
    connected: socket.socket | None = None,
    check: Callable[[bytes], None] | None = None,
) -> Tunnel:
    """Dial `url` (wss://…), attach a tunnel to the connection and return it.

    Args:
        tunnel: not attached yet; its `run()` may have been started already.
        url: where to.
        context: TLS, with the ALPN name that routes to the right part of the hub.
        previous: a tunnel that lost its connection; it is attached instead of `tunnel` when the hub
            still has its session.
        headers: extra headers of the upgrade request.
        proxy: http://, https:// or socks5:// with optional credentials.
        connected: a socket that leads to the hub already, instead of dialling.
        check: looks at the hub's certificate (DER) before a frame is sent; raises to refuse.

    Raises:
        ConnectRefused: the hub answered the upgrade with an HTTP error.
        OSError, ssl.SSLError: no connection.
        TimeoutError: no answer in time.
    """
    asked = {"Sec-WebSocket-Protocol": SUBPROTOCOL, **(headers or {})}
    if previous is not None and previous.resume_by:
        asked[RESUME_HEADER] = previous.resume_by.hex()
    else:
        previous = None
    dialled = _DiallingListener(tunnel, previous, check)
    try:
        async with asyncio.timeout(2 * UPGRADE_TIMEOUT_S):
            await ws_connect(
                lambda: dialled,
                url,
                ssl_context=context,
                extra_headers=asked,
                websocket_handshake_timeout=UPGRADE_TIMEOUT_S,
                max_frame_size=MAX_FRAME,
                max_redirects=0,
                enable_auto_pong=False,
                proxy=proxy,
                socket_factory=None if connected is None else lambda _: connected,
                read_buffer_init_size=READ_BUFFER,
                logger_name=_wire_log,
                ssl_incoming_bio_size=TLS_BUFFER,
                ssl_outgoing_bio_size=TLS_BUFFER,
            )
    except WSHandshakeError as error:
        response = error.response
        if response is None:
            raise ConnectionError(str(error)) from error
        body = (response.body or error.raw_body or b"")[:512].decode("utf-8", "replace").strip()
        raise ConnectRefused(int(response.status), body) from error
    if dialled.refusal is not None:
        raise dialled.refusal
    if not dialled.is_attached:
        raise ConnectionError("the connection was lost as soon as it was there")
    return dialled.tunnel


class _DiallingListener(_TunnelListener):
    """Looks at the hub's certificate first, chooses the tunnel by its answer, notices resets."""

    def __init__(
        self, tunnel: Tunnel, previous: Tunnel | None, check: Callable[[bytes], None] | None
    ) -> None:
        super().__init__(tunnel)
        self._previous = previous
        self._check = check
        self._looking: asyncio.TimerHandle | None = None
        self._is_busy = False
        self.refusal: Exception | None = None

    @property
    def is_attached(self) -> bool:
        """Whether the connection lived long enough to carry a tunnel."""
        return self._carrier is not None

    @property
    def tunnel(self) -> Tunnel:
        """The one that was attached."""
        return self._tunnel

    def on_ws_connected(self, transport: WSTransport) -> None:
        try:
            if self._check is not None:
                self._check(_peer_certificate(transport.underlying_transport) or b"")
        except Exception as error:
            self.refusal = error
            transport.disconnect(graceful=False)
            return
        if self._previous is not None and RESUME_HEADER in transport.response.headers:
            self._tunnel = self._previous
        super().on_ws_connected(transport)

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        super().on_ws_frame(transport, frame)
        self._is_busy = True
        if self._looking is None:
            self._look_later(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._looking is not None:
            self._looking.cancel()
        super().on_ws_disconnected(transport)

    def _look_later(self, transport: WSTransport) -> None:
        """Look for a reset in a while: uvloop tells aiofastnet of none that came behind data."""
        self._is_busy = False
        loop = asyncio.get_running_loop()
        self._looking = loop.call_later(LOOK_EVERY_S, self._look, transport)

    def _look(self, transport: WSTransport) -> None:
        self._looking = None
        raw = transport.underlying_transport.get_extra_info("socket")
        with suppress(OSError):  # it was closed meanwhile
            if raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                transport.disconnect(graceful=False)
            elif self._is_busy:
                self._look_later(transport)


OnRequest: TypeAlias = Callable[[Request], Tunnel | Refusal]


class _AcceptingProtocol(WSProtocol):  # type: ignore[misc]  # picows ships no types for it
    """picows' protocol, which tells the router what TLS knows of the peer."""

    def __init__(self, on_request: OnRequest) -> None:
        self._on_request = on_request
        self._lower: asyncio.BaseTransport | None = None
        super().__init__(
            None,
            None,
            False,
            self._route,
            _wire_log,
            True,
            UPGRADE_TIMEOUT_S,
            False,
            1.0,
            1.0,
            WSAutoPingStrategy.PING_WHEN_IDLE,
            False,  # pongs by picows itself would pile up for a peer that does not read
            MAX_FRAME,
            None,
            READ_BUFFER,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._lower = transport
        super().connection_made(transport)

    def _route(self, upgrade: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        assert self._lower is not None
        peer = self._lower.get_extra_info("peername")
        request = Request(
            path=upgrade.path.decode("ascii", "replace"),
            headers=upgrade.headers,
            certificate=_peer_certificate(self._lower),
            address=peer[0] if isinstance(peer, tuple) else "",
        )
        self._lower = None
        answer = self._on_request(request)
        if isinstance(answer, Refusal):
            return WSUpgradeResponseWithListener(
                WSUpgradeResponse.create_error_response(answer.status, answer.detail.encode()), None
            )
        granted = {}
        if SUBPROTOCOL in request.headers.get("Sec-WebSocket-Protocol", ""):
            granted["Sec-WebSocket-Protocol"] = SUBPROTOCOL
        if answer.resume_by:
            granted[RESUME_HEADER] = "granted"
        return WSUpgradeResponseWithListener(
            WSUpgradeResponse.create_101_response(granted), _TunnelListener(answer)
        )


def accept_websocket(on_request: OnRequest) -> asyncio.BaseProtocol:
    """Make the protocol for one accepted socket; `on_request` gives a tunnel or a refusal."""
    protocol: asyncio.BaseProtocol = _AcceptingProtocol(on_request)
    return protocol


def _peer_certificate(transport: asyncio.BaseTransport) -> bytes | None:
    tls = transport.get_extra_info("ssl_object")
    return None if tls is None else tls.getpeercert(True)
