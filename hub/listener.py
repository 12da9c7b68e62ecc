"""One port for everything: accept, peek at the ClientHello, hand over by ALPN.

`Listener` knows sockets and TLS; what is spoken on a connection is a `Route`: a TLS context and a
protocol factory. Who has not said what it wants is bounded in number and time, so that silent
connections cost a descriptor for ten seconds and nothing else; who has waits in the lane of its
route, where the time is ours and not held against it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import aiofastnet

from hub.address_limits import AddressLimits
from hub.admission import Lane, TurnedAway
from hub.client_hello import MAX_HELLO, Incomplete, NotTls, alpn_protocols
from protocol.aio.websocket import TLS_BUFFER

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT_S = 10.0
MAX_SILENT = 500
"""Connections that have not sent their hello."""
BACKLOG = 4096
PEEK_AGAIN_S = 0.02
_PLAIN_HTTP = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ", b"PATCH ")


@dataclass(frozen=True, slots=True)
class Route:
    """What to speak on a connection."""

    context: ssl.SSLContext
    protocol: Callable[[], asyncio.BaseProtocol]
    lane: Lane
    """Where its handshakes wait for their turn; routes may share one."""
    fast: bool = False
    """TLS by aiofastnet, for tunnels."""
    on_tls_error: Callable[[str, ssl.SSLError], None] | None = None
    """Told the peer's address when the handshake failed."""


class Listener:
    """Listening sockets whose connections are routed by ALPN."""

    def __init__(
        self,
        routes: Mapping[bytes, Route],
        default: Route,
        addresses: AddressLimits | None = None,
    ) -> None:
        """`routes` maps ALPN names; connections that name none of them get `default`."""
        self._addresses = AddressLimits() if addresses is None else addresses
        self._routes = routes
        self._default = default
        self._silent = asyncio.Semaphore(MAX_SILENT)

    async def serve(self, sockets: Iterable[socket.socket]) -> None:
        """Accept until cancelled; the sockets are closed then, established connections live on."""
        with contextlib.ExitStack() as stack:
            async with asyncio.TaskGroup() as tasks:
                for listening in sockets:
                    stack.enter_context(listening)
                    tasks.create_task(self._accept(listening, tasks))

    async def _accept(self, listening: socket.socket, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._silent.acquire()
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:
                # Out of descriptors, or the peer went away while queued: wait, don't spin.
                self._silent.release()
                logger.warning("could not accept a connection: %s", error)
                await asyncio.sleep(0.1)
                continue
            except BaseException:
                self._silent.release()
                raise
            tasks.create_task(self._welcome(connection))

    async def _welcome(self, connection: socket.socket) -> None:
        address = _address_of(connection)
        try:
            route = await self._hear(connection, address)
            if route is not None:
                async with route.lane.turn(address):
                    with self._addresses.entering(address, route.lane):
                        await _connect(connection, route, address)
        except (OSError, TimeoutError, TurnedAway) as error:
            logger.debug("%s: no connection: %r", address, error)
            connection.close()
        except BaseException:
            connection.close()
            raise

    async def _hear(self, connection: socket.socket, address: str) -> Route | None:
        """Wait for what the connection wants; then its place among the silent is free."""
        try:
            connection.setblocking(False)
            with self._addresses.entering(address):
                async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
                    return await self._route_of(connection)
        finally:
            self._silent.release()

    async def _route_of(self, connection: socket.socket) -> Route | None:
        """Peek at what the connection wants; None: it had its answer."""
        try:
            offered = await _peek(connection)
        except NotTls:
            await _answer_plain(connection)
            return None
        route = next((self._routes[name] for name in offered if name in self._routes), None)
        return route or self._default


async def _connect(connection: socket.socket, route: Route, address: str) -> None:
    """Shake hands and hand the connection over."""
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S + 5):
            await _shake_hands(connection, route)
    except ssl.SSLError as error:
        if route.on_tls_error is not None:
            route.on_tls_error(address, error)
        raise


async def _shake_hands(connection: socket.socket, route: Route) -> None:
    loop = asyncio.get_running_loop()
    if route.fast:
        await aiofastnet.connect_accepted_socket(
            loop,
            route.protocol,
            connection,
            ssl=route.context,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
            ssl_incoming_bio_size=TLS_BUFFER,
            ssl_outgoing_bio_size=TLS_BUFFER,
        )
    else:
        await loop.connect_accepted_socket(
            route.protocol,
            connection,
            ssl=route.context,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S,
        )


async def _peek(connection: socket.socket) -> tuple[bytes, ...]:
    """The ALPN names of the hello that waits on the socket.

    Raises:
        NotTls: something else waits there, or the peer closed.
    """
    while True:
        peeked = await _peek_bytes(connection)
        try:
            return alpn_protocols(peeked)
        except Incomplete:
            if len(peeked) >= MAX_HELLO:
                return ()
            # Level-triggered readiness would spin on the bytes that stay in the socket.
            await asyncio.sleep(PEEK_AGAIN_S)


async def _peek_bytes(connection: socket.socket) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return connection.recv(MAX_HELLO, socket.MSG_PEEK)
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(connection, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(connection)
    return connection.recv(MAX_HELLO, socket.MSG_PEEK)


async def _answer_plain(connection: socket.socket) -> None:
    """Tell an HTTP client to use https, and close; anything else is just closed."""
    loop = asyncio.get_running_loop()
    with connection:
        request = await loop.sock_recv(connection, 4096)
        if request.startswith(_PLAIN_HTTP):
            await loop.sock_sendall(connection, plain_answer(request))


def plain_answer(request: bytes) -> bytes:
    """The answer to an HTTP request that came without TLS: a redirect when it names its host."""
    lines = request.split(b"\r\n")
    path = lines[0].split(b" ")[1] if lines[0].count(b" ") >= 2 else b"/"
    hosts = [line[5:].strip() for line in lines[1:] if line[:5].lower() == b"host:"]
    body = b"This port speaks TLS: use https://\n"
    head = [b"HTTP/1.1 400 Bad Request"]
    if hosts and _is_host(hosts[0]) and path.startswith(b"/") and path.isascii():
        head = [b"HTTP/1.1 308 Permanent Redirect", b"Location: https://" + hosts[0] + path]
    head += [
        b"Content-Type: text/plain; charset=utf-8",
        b"Content-Length: %d" % len(body),
        b"Connection: close",
    ]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def _is_host(host: bytes) -> bool:
    allowed = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]"
    return 0 < len(host) <= 255 and all(byte in allowed for byte in host)


def _address_of(connection: socket.socket) -> str:
    try:
        peer = connection.getpeername()
    except OSError:
        return ""
    return str(peer[0]) if isinstance(peer, tuple) else ""


def bind(host: str, port: int) -> list[socket.socket]:
    """Open the listening sockets of every address that `host` names.

    Raises:
        OSError: an address is taken or not ours.
    """
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = socket.socket(family, kind, protocol)
            sockets.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family is socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.setblocking(False)
            # With port 0 the first address picks, the others follow.
            chosen = port or (sockets[0].getsockname()[1] if len(sockets) > 1 else 0)
            listening.bind((address[0], chosen, *address[2:]))
            listening.listen(BACKLOG)
    except BaseException:
        for listening in sockets:
            listening.close()
        raise
    return sockets
