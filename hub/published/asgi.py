"""The little of ASGI that serving published services needs, and the hub's own short answers there.

The rule it guards: an answer of the hub at a service's address runs no script, is stored by nobody,
and shows what came from a node as text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from hub.published.headers import Headers

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HOST = re.compile(r"[a-z0-9.-]{1,253}(?::[0-9]{1,5})?|\[[0-9a-f:.]{2,45}\](?::[0-9]{1,5})?")
_TITLES = {
    400: "The request cannot be taken", 401: "Not signed in", 403: "Not allowed",
    404: "Nothing here", 405: "Not possible", 502: "The service does not answer",
    503: "The service is not available", 504: "The service takes too long",
}  # fmt: skip
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>{title}</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36rem;margin:15vh auto;padding:0 1rem;
color-scheme:light dark}}h1{{font-size:1.3rem}}small{{opacity:.6}}</style>
<h1>{title}</h1><p>{detail}</p><small>Mooring</small></html>
"""
_FIXED: Headers = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; sandbox"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]


@dataclass(frozen=True, slots=True)
class Call:
    """A request or a socket: what ASGI hands over, and the short answers to it."""

    scope: Scope
    receive: Receive
    send: Send

    @property
    def is_socket(self) -> bool:
        """Whether it is a WebSocket."""
        return bool(self.scope["type"] == "websocket")

    @property
    def path(self) -> bytes:
        """The path as it came, escapes and all."""
        path: bytes = self.scope["raw_path"]
        return path

    @property
    def headers(self) -> Headers:
        """All headers."""
        headers: Headers = self.scope["headers"]
        return headers

    @property
    def host(self) -> str | None:
        """The `Host` in lower case; None unless there is exactly one that is well-formed."""
        values = [value for name, value in self.headers if name.lower() == b"host"]
        host = values[0].decode("latin-1").lower() if len(values) == 1 else ""
        return host if _HOST.fullmatch(host) else None

    @property
    def client(self) -> str:
        """The caller's network address."""
        client = self.scope.get("client")
        return client[0] if client else ""

    def header(self, name: bytes) -> str | None:
        """Return a header; the first when there are several."""
        for key, value in self.headers:
            if key.lower() == name:
                return value.decode("latin-1")
        return None

    def is_navigation(self) -> bool:
        """Say whether a person goes to a page: then a redirect or a page answers best."""
        if self.is_socket or self.scope["method"] not in ("GET", "HEAD"):
            return False
        mode = self.header(b"sec-fetch-mode")
        if mode is not None:
            return mode == "navigate"
        return "text/html" in (self.header(b"accept") or "")

    def with_query(self, path: bytes) -> bytes:
        """Return a path with the request's query."""
        query: bytes = self.scope["query_string"]
        return path + b"?" + query if query else path

    def hide_target(self, shown: str) -> None:
        """Let nobody else, the server's log least of all, see what was asked for."""
        self.scope.update(path=shown, raw_path=shown.encode(), query_string=b"")

    async def refuse(self, status: int, detail: str) -> None:
        """Answer with a short text: a page for people, a line for programs."""
        kind, text = "text/plain", f"{detail}\n"
        if self.is_navigation():
            kind = "text/html"
            text = _PAGE.format(title=_TITLES[status], detail=html.escape(detail))
        await self.answer(status, [(b"content-type", f"{kind}; charset=utf-8".encode())], text)

    async def redirect(self, location: bytes, *headers: tuple[bytes, bytes]) -> None:
        """Answer with 303 See Other."""
        await self.answer(303, [(b"location", location), *headers])

    async def answer(self, status: int, headers: Headers, text: str = "") -> None:
        """Answer a request, or a socket that is not accepted yet."""
        kind = "websocket.http.response" if self.is_socket else "http.response"
        body = text.encode()
        headers = [*headers, *_FIXED, (b"content-length", b"%d" % len(body))]
        await self.send({"type": f"{kind}.start", "status": status, "headers": headers})
        await self.send({"type": f"{kind}.body", "body": body, "more_body": False})
