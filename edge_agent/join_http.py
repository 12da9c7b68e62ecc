"""One request to the hub's joining side: TLS 1.3, ALPN `mooring-join/1`, maybe through a proxy.

The peer is looked at after the handshake and before the first byte of the request: a secret is
never sent to somebody who has only shown some certificate of the mesh.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from python_socks import ProxyError
from python_socks.sync import Proxy

TIMEOUT_S = 20.0
"""For connecting and for each wait on the socket."""
ANSWER_LIMIT_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What the hub answered."""

    status: int
    body: bytes
    retry_after_s: float | None = None


def request(
    hub: str,
    method: str,
    path: str,
    body: bytes | None,
    *,
    context: ssl.SSLContext,
    proxy: str | None,
    check: Callable[[bytes | None], None],
) -> Answer:
    """Send one request on a connection of its own.

    Args:
        hub: https://host[:port].
        method: GET or POST.
        path: from the root.
        body: JSON, or None.
        context: of `certs.contexts`.
        proxy: URL of an HTTP or SOCKS proxy, or None.
        check: looks at the peer's certificate (DER) and raises what it wants.

    Raises:
        OSError: the hub can't be reached; `ssl.SSLError` among them.
        http.client.HTTPException: what answers doesn't speak HTTP.
    """
    parts = urlsplit(hub)
    host, port = parts.hostname or "", parts.port or 443
    with _connect(host, port, proxy) as plain:
        with context.wrap_socket(plain, server_hostname=host) as tls:
            check(tls.getpeercert(binary_form=True))
            connection = http.client.HTTPConnection(host, port)
            connection.sock = tls
            headers = {"Connection": "close", "Host": parts.netloc}
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, path, body, headers)
            return _read(connection.getresponse())


def _read(response: http.client.HTTPResponse) -> Answer:
    body = response.read(ANSWER_LIMIT_BYTES + 1)
    if len(body) > ANSWER_LIMIT_BYTES:
        raise http.client.HTTPException("the answer is too long")
    after = response.getheader("Retry-After") or ""
    seconds = float(after) if after.isascii() and after.isdigit() else None
    return Answer(response.status, body, seconds)


def _connect(host: str, port: int, proxy: str | None) -> socket.socket:
    if proxy is None:
        return socket.create_connection((host, port), TIMEOUT_S)
    try:
        connected = Proxy.from_url(proxy).connect(host, port, timeout=TIMEOUT_S)
    except (ProxyError, ValueError) as error:
        raise OSError(f"the proxy refused: {error}") from error
    assert isinstance(connected, socket.socket)
    connected.settimeout(TIMEOUT_S)
    return connected
