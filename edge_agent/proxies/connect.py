"""A socket that a proxy has connected to the hub: CONNECT (RFC 9110 §9.3.6) and SOCKS5 (RFC 1928).

    connected = await connect_by(route, "https://hub.example:8443")

The proxy is told the name, not an address: behind one, names often resolve nowhere else. Nothing is
read past the proxy's answer, so the socket begins with the hub's first byte.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import io
import ipaddress
import os
import re
import socket
import ssl
from enum import StrEnum
from urllib.parse import urlsplit

from edge_agent.proxies.choice import Proxy, Route
from edge_agent.proxies.secure import over_tls

TIMEOUT_S = 20.0
"""For reaching the proxy, and for its answer."""
HEAD_LIMIT_BYTES = 32 * 1024


class ProxyFault(StrEnum):
    """Why a proxy gave no connection."""

    UNREACHABLE = "unreachable"
    TLS = "tls"
    NOT_A_PROXY = "not_a_proxy"
    NEEDS_PASSWORD = "needs_password"  # noqa: S105 - a name, not a secret
    WRONG_PASSWORD = "wrong_password"  # noqa: S105
    OTHER_LOGIN = "other_login"
    FORBIDDEN = "forbidden"
    HUB_UNREACHABLE = "hub_unreachable"
    FAILED = "failed"


_ADVICE = {
    ProxyFault.UNREACHABLE: "check its address, and that it runs and lets this machine in",
    ProxyFault.TLS: "use http:// unless it speaks TLS itself, and let this machine trust its CA",
    ProxyFault.NOT_A_PROXY: "check the scheme and the port of its URL",
    ProxyFault.NEEDS_PASSWORD: "put them into its URL: SCHEME://USER:PASSWORD@HOST:PORT",
    ProxyFault.WRONG_PASSWORD: "check them; special characters must be percent-encoded in the URL",
    ProxyFault.OTHER_LOGIN: "have it take basic authentication, or let the hub pass without",
    ProxyFault.FORBIDDEN: "have it allow that host and port; many proxies only allow port 443",
    ProxyFault.HUB_UNREACHABLE: "check the hub's address, and that the proxy itself can reach it",
    ProxyFault.FAILED: "ask whoever runs the proxy",
}


class ProxyFailed(OSError):
    """A proxy gave no connection; the text says why and what to do."""

    def __init__(self, proxy: Proxy, fault: ProxyFault, detail: str) -> None:
        super().__init__(proxy, fault, detail)
        self.proxy = proxy
        self.fault = fault
        self.detail = detail

    @property
    def advice(self) -> str:
        """What to do about it."""
        return _ADVICE[self.fault]

    def __str__(self) -> str:
        return f"the proxy {self.proxy} {self.detail}: {self.advice}"


async def connect_by(route: Route, hub: str, timeout_s: float = TIMEOUT_S) -> socket.socket | None:
    """Return a socket that the route's proxy has connected to a hub, None where there is no proxy.

    Raises:
        ProxyFailed: with the reason.
    """
    if route.proxy is None:
        return None
    parts = urlsplit(hub)
    return await connect_through(route.proxy, parts.hostname or "", parts.port or 443, timeout_s)


async def connect_through(
    proxy: Proxy, host: str, port: int, timeout_s: float = TIMEOUT_S
) -> socket.socket:
    """Return a non-blocking socket that leads to `host:port`; the caller owns it.

    Raises:
        ProxyFailed: with the reason.
    """
    speak = _socks5 if proxy.scheme == "socks5" else _http
    try:
        async with asyncio.timeout(timeout_s):
            connected = await _reach(proxy)
    except TimeoutError as error:
        raise ProxyFailed(proxy, ProxyFault.UNREACHABLE, "does not answer") from error
    try:
        async with asyncio.timeout(timeout_s):
            await speak(connected, proxy, host, port)
    except BaseException as error:
        connected.close()
        if isinstance(error, TimeoutError):
            detail = f"did not answer within {timeout_s:.0f} s when asked for {host}:{port}"
            raise ProxyFailed(proxy, ProxyFault.HUB_UNREACHABLE, detail) from error
        if isinstance(error, OSError | EOFError) and not isinstance(error, ProxyFailed):
            detail = "closed the connection instead of answering"
            raise ProxyFailed(proxy, ProxyFault.NOT_A_PROXY, detail) from error
        raise
    return connected


async def _reach(proxy: Proxy) -> socket.socket:
    try:
        connected = await _connect_tcp(proxy.host, proxy.port)
    except OSError as error:
        detail = f"can't be reached ({reason_of(error)})"
        raise ProxyFailed(proxy, ProxyFault.UNREACHABLE, detail) from error
    if proxy.scheme != "https":
        return connected
    try:
        return await over_tls(connected, proxy.host)
    except OSError as error:
        why = error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else error
        detail = f"could not be spoken to by TLS ({why})"
        raise ProxyFailed(proxy, ProxyFault.TLS, detail) from error


def reason_of(error: OSError) -> str:
    """Return the system's words for an error; asyncio's own hold the address and no reason."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error) or type(error).__name__
    return os.strerror(error.errno)


async def _connect_tcp(host: str, port: int) -> socket.socket:
    """Connect to the first address of a host that answers; the last failure tells why none did."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure = OSError("its name has no address")
    for family, kind, protocol, _, address in found:
        connected = socket.socket(family, kind, protocol)
        connected.setblocking(False)
        try:
            await loop.sock_connect(connected, address)
        except OSError as error:
            connected.close()
            failure = error
        except BaseException:
            connected.close()
            raise
        else:
            return connected
    raise failure


# --- HTTP ---


async def _http(connected: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.username is not None:
        login = base64.b64encode(f"{proxy.username}:{proxy.password}".encode()).decode()
        lines.append(f"Proxy-Authorization: Basic {login}")
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connected, "\r\n".join([*lines, "", ""]).encode())
    head = await _read_head(connected, proxy)
    status = re.match(rb"HTTP/1\.[01] ([1-5]\d\d)(?: |\r\n)", head)
    if status is None:
        raise _no_proxy(proxy)
    if not 200 <= int(status[1]) < 300:
        raise _http_failure(proxy, int(status[1]), head, target)


async def _read_head(connected: socket.socket, proxy: Proxy) -> bytes:
    """Read up to the empty line and not a byte further: those that follow are the hub's."""
    loop = asyncio.get_running_loop()
    head = bytearray()
    while not head.endswith(b"\r\n\r\n"):
        # At most as many bytes as are surely missing of the empty line.
        missing = 4 - next(n for n in (3, 2, 1, 0) if head.endswith(b"\r\n\r\n"[:n]))
        data = await loop.sock_recv(connected, missing)
        if not data:
            raise EOFError
        head += data
        if len(head) > HEAD_LIMIT_BYTES or not b"HTTP/"[: len(head)] == head[:5]:
            raise _no_proxy(proxy)
    return bytes(head)


def _no_proxy(proxy: Proxy) -> ProxyFailed:
    return ProxyFailed(proxy, ProxyFault.NOT_A_PROXY, "answered what no HTTP proxy answers")


def _http_failure(proxy: Proxy, status: int, head: bytes, target: str) -> ProxyFailed:
    if status == 407:
        return _login_failure(proxy, head)
    if status in (502, 503, 504):
        detail = f"can't reach {target} (HTTP status {status})"
        return ProxyFailed(proxy, ProxyFault.HUB_UNREACHABLE, detail)
    detail = f"does not let us connect to {target} (HTTP status {status})"
    if status in (400, 404, 405, 501):
        detail = f"does not know CONNECT, as if it were a web server (HTTP status {status})"
        return ProxyFailed(proxy, ProxyFault.NOT_A_PROXY, detail)
    return ProxyFailed(proxy, ProxyFault.FORBIDDEN if status == 403 else ProxyFault.FAILED, detail)


def _login_failure(proxy: Proxy, head: bytes) -> ProxyFailed:
    fields = io.BytesIO(head.partition(b"\r\n")[2])
    offers = http.client.parse_headers(fields).get_all("Proxy-Authenticate") or []
    kinds = [kind[0] for offer in offers if (kind := re.match(r"[A-Za-z0-9-]{1,20}", offer))]
    if kinds and "basic" not in [kind.lower() for kind in kinds]:
        detail = f"wants a login by {' or '.join(kinds[:5])}, which is not spoken here (407)"
        return ProxyFailed(proxy, ProxyFault.OTHER_LOGIN, detail)
    return _password_failure(proxy, "407")


def _password_failure(proxy: Proxy, code: str) -> ProxyFailed:
    if proxy.username is None:
        return ProxyFailed(proxy, ProxyFault.NEEDS_PASSWORD, f"wants a user and password ({code})")
    detail = f"did not take the user and password that are set ({code})"
    return ProxyFailed(proxy, ProxyFault.WRONG_PASSWORD, detail)


# --- SOCKS5 ---

_NO_LOGIN, _PASSWORD, _NONE_OF_THESE = 0x00, 0x02, 0xFF
_REPLIES = {
    # RFC 1928 §6
    2: (ProxyFault.FORBIDDEN, "does not allow connections to {target}"),
    3: (ProxyFault.HUB_UNREACHABLE, "has no network to {target}"),
    4: (ProxyFault.HUB_UNREACHABLE, "can't reach or resolve the host of {target}"),
    5: (ProxyFault.HUB_UNREACHABLE, "was refused by {target}"),
    6: (ProxyFault.HUB_UNREACHABLE, "got no answer from {target}"),
}


async def _socks5(connected: socket.socket, proxy: Proxy, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    method = _NO_LOGIN if proxy.username is None else _PASSWORD
    await loop.sock_sendall(connected, bytes([5, 1, method]))
    version, chosen = await _read_exactly(connected, 2)
    if version == 5 and chosen == _NONE_OF_THESE:
        raise _socks_login_failure(proxy)
    if version != 5 or chosen != method:
        raise ProxyFailed(proxy, ProxyFault.NOT_A_PROXY, "answered what no SOCKS5 proxy answers")
    if method == _PASSWORD:
        await _socks_login(connected, proxy)
    await loop.sock_sendall(connected, bytes([5, 1, 0]) + _socks_target(proxy, host, port))
    _, reply, _, kind = await _read_exactly(connected, 4)
    if reply:
        fault, detail = _REPLIES.get(reply, (ProxyFault.FAILED, "failed to connect to {target}"))
        detail = detail.format(target=f"{host}:{port}")
        raise ProxyFailed(proxy, fault, f"{detail} (SOCKS reply {reply})")
    length = {1: 4, 4: 16}.get(kind) or (await _read_exactly(connected, 1))[0]
    await _read_exactly(connected, length + 2)


async def _socks_login(connected: socket.socket, proxy: Proxy) -> None:
    """Log in by RFC 1929."""
    user, password = (proxy.username or "").encode(), proxy.password.encode()
    if len(user) > 255 or len(password) > 255:
        detail = "takes at most 255 bytes of user and password each"
        raise ProxyFailed(proxy, ProxyFault.WRONG_PASSWORD, detail)
    message = bytes([1, len(user)]) + user + bytes([len(password)]) + password
    await asyncio.get_running_loop().sock_sendall(connected, message)
    _, status = await _read_exactly(connected, 2)
    if status:
        raise _password_failure(proxy, f"SOCKS status {status}")


def _socks_login_failure(proxy: Proxy) -> ProxyFailed:
    if proxy.username is None:
        return _password_failure(proxy, "it lets nobody in without")
    detail = "takes no user and password: leave them out of its URL"
    return ProxyFailed(proxy, ProxyFault.OTHER_LOGIN, detail)


def _socks_target(proxy: Proxy, host: str, port: int) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode()
        if len(name) > 255:
            detail = "takes names of at most 255 bytes"
            raise ProxyFailed(proxy, ProxyFault.FAILED, detail) from None
        return bytes([3, len(name)]) + name + port.to_bytes(2, "big")
    kind = 1 if address.version == 4 else 4
    return bytes([kind]) + address.packed + port.to_bytes(2, "big")


async def _read_exactly(connected: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        piece = await loop.sock_recv(connected, count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
