"""Between calls and HTTP, without I/O: requests built, answers and failures decoded, lines cut.

The rule it guards: the blocking and the asynchronous client differ in `await` and in nothing else.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import httpx
import msgspec

from mooring.sdk.call import PAGE_SIZE, Call
from mooring.sdk.errors import HubNotTrusted, HubUnreachable, InternalError, error_of
from mooring.sdk.identity import Identity

T = TypeVar("T")
TIMEOUT = httpx.Timeout(30.0, connect=10.0)
STREAM_TIMEOUT = httpx.Timeout(30.0, connect=10.0, read=None)
"""A quiet task says nothing for hours; TCP keep-alive finds a dead link."""
UPLOAD_TIMEOUT = httpx.Timeout(60.0, connect=10.0, read=600.0)
"""The hub answers after it has hashed and looked through the whole archive."""
LINE_LIMIT = 4 * 1024 * 1024  # bytes; the hub's lines are below 1 MiB


def keep_alive() -> list[tuple[int, int, int]]:
    """Socket options that find a dead link within a minute."""
    import socket

    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    if hasattr(socket, "TCP_KEEPIDLE"):
        options += [
            (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20),
            (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
            (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
        ]
    return options


def headers_of(identity: Identity) -> dict[str, str]:
    """Headers of every request."""
    headers = {"Accept": "application/json", "User-Agent": "mooring"}
    if identity.token:
        headers["Authorization"] = f"Bearer {identity.token}"
    return headers


def request_of(call: Call[Any], headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Arguments for `httpx.Client.build_request`."""
    content, given = None, dict(headers or {})
    if call.body is not None:
        content = msgspec.json.encode(call.body)
        given["Content-Type"] = "application/json"
    params = {key: value for key, value in call.query.items() if value is not None}
    return {
        "method": call.method,
        "url": call.path,
        "params": params,
        "content": content,
        "headers": given,
    }


def upload_headers(size_bytes: int, sha256: str | None) -> dict[str, str]:
    """Headers of a raw body."""
    headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size_bytes)}
    return headers if sha256 is None else {**headers, "X-Checksum-SHA256": sha256}


def page_size(left: int | None) -> int:
    """How many items to ask for when `left` are still wanted; None: all."""
    return PAGE_SIZE if left is None else min(left, PAGE_SIZE)


def answer_of(call: Call[T], response: httpx.Response) -> T:
    """Decode a whole answer.

    Raises:
        MooringError: the hub said no, or it is no hub.
    """
    check(response.status_code, response.content, response.headers)
    nothing = call.returns is type(None)
    answer: T = decode(b"null" if nothing else response.content, call.returns)
    return answer


def check(status: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Raise what an answer that isn't a success means."""
    if not 200 <= status < 300:
        raise error_of(status, body, headers.get("Retry-After"))


def decode(data: bytes, kind: Any) -> Any:
    """Decode JSON of the hub.

    Raises:
        InternalError: it is something else.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise InternalError(f"the answer is not one this version understands: {error}") from error


def failure_of(error: httpx.HTTPError, url: str) -> HubUnreachable:
    """Say what an exception of httpx means."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return HubNotTrusted(url, f"its certificate isn't trusted: {cause.verify_message}")
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ConnectTimeout | httpx.PoolTimeout):
        return HubUnreachable(url, "no connection within 10 s")
    if isinstance(error, httpx.TimeoutException):
        return HubUnreachable(url, "no answer within 30 s")
    return HubUnreachable(url, str(error) or type(error).__name__)


class Lines:
    """Bytes in, whole lines out, however the bytes were cut."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the lines that `data` completes; empty ones are left out.

        Raises:
            InternalError: a line is longer than 4 MiB.
        """
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_LIMIT:
            raise InternalError(f"the hub sent a line of more than {LINE_LIMIT} bytes")
        yield from filter(None, (line.rstrip(b"\r") for line in whole))


class ServerEvents:
    """Lines of a `text/event-stream` in, the data of its events out.

    Comments and ids are dropped: our events carry their id themselves.
    """

    def __init__(self) -> None:
        self._lines = Lines()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the data of each event; the hub writes one `data:` line per event."""
        for line in self._lines.feed(data):
            if line.startswith(b"data:"):
                yield line[5:].strip()
