"""`Sites`: the layer before the hub's application that serves what nodes publish.

The rule it guards: what a node serves is hostile, so its pages never have the hub's origin. A
service with a host name of its own lives there, under a cookie of that host alone. One without
lives at `/published/NAME/~KEY/`: every answer is sandboxed, its origin is opaque, and since such a
page sends no cookies the unguessable KEY says who asks. The hub's own session cookie is read by
neither. All other requests are the application's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qs

from hub.errors import Forbidden, HubError, NotSignedIn
from hub.published.asgi import App, Call, Receive, Scope, Send
from hub.published.connect import Unreachable
from hub.published.doors import ENTER, PREFIX, is_local_target
from hub.published.exchange import exchange
from hub.published.headers import ENTRY_COOKIE, Place, cookie_of, path_mode_headers
from hub.published.published import Published
from hub.published.services import Service
from hub.published.sockets import relay
from hub.published.visit import Visit

_BELOW_HUB = re.compile(rb"/published/([a-z0-9-]{1,63})/~([A-Za-z0-9_-]{1,128})(/.*)?", re.DOTALL)
_PORT = re.compile(r":\d+$")
_ALLOWED_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


@dataclass(frozen=True, slots=True)
class Sites:
    """An ASGI application around the hub's."""

    app: App
    published: Published

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of a published service, hand on every other."""
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        call = Call(scope, receive, send)
        service = self._service_at(call.host)
        below = _BELOW_HUB.fullmatch(call.path)
        if service is None and below is None:
            return await self.app(scope, receive, send)
        if call.is_socket:
            await receive()  # ASGI: `websocket.connect` comes first
        if service is not None:
            await self._at_host(call, service)
        elif below is not None:
            await self._below_hub(call, below[1].decode(), below[2].decode(), below[3])

    def _service_at(self, host: str | None) -> Service | None:
        if host is None:
            return None
        return self.published.services.at_host(_PORT.sub("", host).rstrip("."))

    async def _at_host(self, call: Call, service: Service) -> None:
        if call.path == ENTER.encode() and call.is_navigation():
            await self._enter(call, service)
        elif call.path.startswith(b"/.mooring/"):
            await call.refuse(404, "This part of the address is Mooring's own.")
        else:
            secret = cookie_of(call.headers, ENTRY_COOKIE)
            await self._admit(call, service, secret, prefix="", path=call.path)

    async def _below_hub(self, call: Call, name: str, key: str, path: bytes | None) -> None:
        service, prefix = self.published.services.find(name), f"{PREFIX}{name}/~{key}"
        if service is None or service.row.host_name is not None or call.host is None:
            await call.refuse(404, f"No service {name!r} is published here.")
        elif path is None:
            await call.redirect(call.with_query(prefix.encode() + b"/"))
        else:
            await self._admit(call, service, key, prefix=prefix, path=path)

    async def _enter(self, call: Call, service: Service) -> None:
        """Turn a ticket of the hub into a cookie of this host."""
        query = parse_qs(call.scope["query_string"].decode("latin-1"))
        ticket, to = (query.get(key, [""])[0] for key in ("ticket", "to"))
        call.hide_target(ENTER)
        to = to if is_local_target(to) else "/"
        doors = self.published.doors
        try:
            secret = await doors.redeem(service, ticket)
        except NotSignedIn:
            return await call.redirect(doors.front_of(service, to.encode()))
        cookie = f"{ENTRY_COOKIE}={secret}; Path=/; Secure; HttpOnly; SameSite=Lax"
        await call.redirect(to.encode(), (b"set-cookie", cookie.encode()))

    async def _admit(
        self, call: Call, service: Service, secret: str | None, *, prefix: str, path: bytes
    ) -> None:
        """Find out who asks, refuse what is not his own page's, and serve the rest."""
        entry = self.published.entries.find(secret, service.name) if secret else None
        target = call.with_query(path)
        call.hide_target(f"{PREFIX}{service.name}/")
        if entry is None:
            if call.is_navigation():
                return await call.redirect(self.published.doors.front_of(service, target))
            return await call.refuse(401, "You are not signed in any more; load the page again.")
        place = _place(call, service, prefix, entry.subject.name)
        visit = Visit(call, service, entry, place, target)
        if not visit.comes_from_own_page():
            await call.refuse(403, "This is another page's request; it is not let through.")
        elif call.header(b"service-worker") is not None:
            await call.refuse(403, "A published service cannot have a service worker.")
        elif visit.is_preflight():
            await _allow(visit)
        elif call.scope.get("method") in ("CONNECT", "TRACE"):
            await call.refuse(405, "A published service is not asked that.")
        else:
            await self._serve(visit)

    async def _serve(self, visit: Visit) -> None:
        published, service, call = self.published, visit.service, visit.call
        carry, user = relay if call.is_socket else exchange, visit.entry.subject.name
        try:
            node = published.services.node_of(service)
            async with (
                published.uses.admit(visit.entry, service, node) as connection,
                published.connector.connect(service, node, user, connection) as wire,
            ):
                await carry(wire, visit)
        except Unreachable as error:
            await call.refuse(error.status, str(error))
        except Forbidden as error:
            await call.refuse(403, str(error))
        except HubError as error:
            await call.refuse(503, str(error))


def _place(call: Call, service: Service, prefix: str, user: str) -> Place:
    row, host = service.row, call.host or ""
    own = f"[{row.host}]" if ":" in row.host else row.host
    if row.port != {"http": 80, "https": 443}[row.scheme]:
        own = f"{own}:{row.port}"
    seen = host if row.keep_host else own
    scheme = "https" if row.keep_host else row.scheme
    return Place(
        host=host,
        prefix=prefix,
        service_host=seen,
        service_origin=f"{scheme}://{seen}",
        user=user,
        client=call.client,
    )


async def _allow(visit: Visit) -> None:
    """Answer a preflight: whoever knows the secret path may ask anything there."""
    asked = visit.call.header(b"access-control-request-headers") or ""
    headers = [
        *path_mode_headers(),
        (b"access-control-allow-methods", _ALLOWED_METHODS),
        (b"access-control-allow-headers", asked.encode("latin-1")),
        (b"access-control-max-age", b"600"),
    ]
    await visit.call.answer(204, headers)
