"""One HTTP request to a hub over TLS, maybe through a proxy, and who it is that answers.

    answer = await exchange(hub, route, context, Call("GET", "/api/v1/ca"), check=check)
    seen = await look(hub, route, TUNNEL_ALPN)         # only the handshake, nothing is trusted

The peer is looked at after the handshake and before the first byte of the request: a secret is
never sent to somebody who has only shown some certificate of the mesh.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import Message
from urllib.parse import urlsplit

from cryptography import x509

from certs.contexts import untrusting_context
from edge_agent.proxies import Route, connect_by, until_gone

TIMEOUT_S = 20.0
"""For connecting with TLS, and for the answer."""
ANSWER_LIMIT_BYTES = 256 * 1024
HEAD_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Call:
    """What to ask."""

    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered; an upgrade (101) has no body."""

    status: int
    body: bytes
    headers: Message = field(default_factory=Message)

    @property
    def retry_after_s(self) -> float | None:
        """When to come back, when the hub says it in seconds."""
        after = self.headers.get("Retry-After") or ""
        return float(after) if after.isascii() and after.isdigit() else None


@dataclass(frozen=True, slots=True)
class Seen:
    """Who answered a handshake, nothing of it verified."""

    certificate: x509.Certificate | None
    alpn: str | None

    @property
    def issuer(self) -> str:
        """The issuer's name as one line."""
        if self.certificate is None:
            return "nobody"
        return printable(self.certificate.issuer.rfc4514_string())


def printable(text: str, limit: int = 200) -> str:
    """Return a stranger's text as one line without control characters."""
    return "".join(c if c.isprintable() else " " for c in text)[:limit].strip()


async def exchange(
    hub: str,
    route: Route,
    context: ssl.SSLContext,
    call: Call,
    *,
    check: Callable[[bytes | None], None] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Answer:
    """Send one request on a connection of its own.

    Args:
        hub: https://host[:port].
        route: the way there.
        context: of `certs.contexts`.
        call: the request.
        check: looks at the peer's certificate (DER) and raises what it wants.
        timeout_s: for connecting, and for the answer.

    Raises:
        OSError: the hub can't be reached; `ssl.SSLError`, `TimeoutError`, `ProxyFailed` among them.
        http.client.HTTPException: what answers doesn't speak HTTP.
    """
    async with _connection(hub, route, context, timeout_s) as (reader, writer):
        if check is not None:
            check(_tls(writer).getpeercert(binary_form=True))
        async with asyncio.timeout(timeout_s):
            writer.write(_request(urlsplit(hub).netloc, call))
            return await _read(reader)


async def look(hub: str, route: Route, alpn: str, timeout_s: float = TIMEOUT_S) -> Seen:
    """Shake hands with whoever answers, trusting nobody and sending nothing.

    Raises:
        OSError: as `exchange`.
    """
    context = untrusting_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # all that inspecting proxies may speak
    context.set_alpn_protocols([alpn])
    async with _connection(hub, route, context, timeout_s) as (_, writer):
        tls = _tls(writer)
        der = tls.getpeercert(binary_form=True)
        try:
            certificate = x509.load_der_x509_certificate(der) if der else None
        except ValueError:
            certificate = None
        return Seen(certificate, tls.selected_alpn_protocol())


@asynccontextmanager
async def _connection(
    hub: str, route: Route, context: ssl.SSLContext, timeout_s: float
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    parts = urlsplit(hub)
    host, port = parts.hostname or "", parts.port or 443
    connected = await connect_by(route, hub, timeout_s)
    async with asyncio.timeout(timeout_s):
        reader, writer = await asyncio.open_connection(
            *((host, port) if connected is None else ()),
            sock=connected,
            ssl=context,
            server_hostname=host,
            limit=HEAD_LIMIT_BYTES,
        )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await until_gone(connected)


def _tls(writer: asyncio.StreamWriter) -> ssl.SSLObject:
    tls = writer.get_extra_info("ssl_object")
    assert isinstance(tls, ssl.SSLObject)
    return tls


def _request(host: str, call: Call) -> bytes:
    headers = {"Host": host, "Connection": "close", **call.headers}
    if call.body is not None:
        headers["Content-Type"] = "application/json"
        headers["Content-Length"] = str(len(call.body))
    lines = [f"{call.method} {call.path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + (call.body or b"")


async def _read(reader: asyncio.StreamReader) -> Answer:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise ConnectionError("it closed the connection instead of answering") from error
    except asyncio.LimitOverrunError as error:
        raise http.client.HTTPException("the answer's head is too long") from error
    response = http.client.HTTPResponse(_Head(head))  # type: ignore[arg-type]
    response.begin()
    if response.status == http.client.SWITCHING_PROTOCOLS:
        return Answer(response.status, b"", response.headers)
    if response.chunked or (response.length or 0) > ANSWER_LIMIT_BYTES:
        raise http.client.HTTPException("the answer is longer than any of a hub")
    return Answer(response.status, await _read_body(reader, response.length), response.headers)


async def _read_body(reader: asyncio.StreamReader, length: int | None) -> bytes:
    """Read a body of a length that was told, or up to the connection's end."""
    wanted = ANSWER_LIMIT_BYTES + 1 if length is None else length
    body = b""
    while len(body) < wanted and (piece := await reader.read(wanted - len(body))):
        body += piece
    if len(body) > ANSWER_LIMIT_BYTES or len(body) < (length or 0):
        raise http.client.HTTPException("the answer is cut short or longer than any of a hub")
    return body


class _Head:
    """An answer's head where `http.client` wants a socket."""

    def __init__(self, head: bytes) -> None:
        self._head = head

    def makefile(self, mode: str) -> io.BytesIO:
        """Give the bytes as a file."""
        return io.BytesIO(self._head)
