"""Who calls, and whether they may: one guard on every route, found by a test.

The rule it guards: a route declares exactly one of `requires(verb)`, `signed_in()`, `public()`. The
first two authenticate (bearer token, else the session cookie with Origin and CSRF proof), so a
handler's `subject: Subject` is always checked. No database is read for a credential seen lately.

    @get("/nodes", guards=[requires(Verb.VIEW)])
    async def list_nodes(hub: Hub, subject: Subject) -> ...
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.handlers import BaseRouteHandler
from litestar.types import Scope

from hub.authz import Subject, Verb, authorize
from hub.core import Hub
from hub.errors import CsrfFailed, NotSignedIn

COOKIE = "__Host-mooring"
CSRF_HEADER = "x-csrf-token"
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

Connection = ASGIConnection[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Requires:
    """Authenticates and checks the subject's role for `verb`; per node the handler asks again."""

    verb: Verb

    async def __call__(self, connection: Connection, _handler: BaseRouteHandler) -> None:
        """Let the request through or raise `NotSignedIn`, `CsrfFailed`, `Forbidden`."""
        authorize(await authenticate(connection), self.verb)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Authenticates; every role may."""

    async def __call__(self, connection: Connection, _handler: BaseRouteHandler) -> None:
        """Let the request through or raise `NotSignedIn`, `CsrfFailed`."""
        await authenticate(connection)


@dataclass(frozen=True, slots=True)
class Public:
    """Lets everybody through; the handler has no subject."""

    async def __call__(self, connection: Connection, _handler: BaseRouteHandler) -> None:
        """Let the request through."""


def requires(verb: Verb) -> Requires:
    """Declare that a route needs a subject whose role includes `verb`."""
    return Requires(verb)


def signed_in() -> SignedIn:
    """Declare that a route needs any subject."""
    return SignedIn()


def public() -> Public:
    """Declare that a route is open to everybody."""
    return Public()


async def authenticate(connection: Connection) -> Subject:
    """Find out who calls, and remember it for the handler in the scope.

    Raises:
        NotSignedIn: no credential, or not a valid one.
        CsrfFailed: a browser's mutating request or socket does not come from a page of this hub.
    """
    hub: Hub = connection.app.state.hub
    header = connection.headers.get("authorization")
    if header is not None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            raise NotSignedIn("the Authorization header must be: Bearer TOKEN")
        subject = await hub.accounts.tokens.verify(token.strip(), address_of(connection))
    else:
        cookie = connection.cookies.get(COOKIE)
        if cookie is None:
            raise NotSignedIn
        session = await hub.accounts.sessions.verify(cookie, address_of(connection))
        check_own_page(connection, session.csrf)
        subject = session.subject
    connection.scope["user"] = subject
    return subject


def check_own_page(connection: Connection, csrf: str) -> None:
    """Check that a request carried by a cookie was made by a page of this hub.

    Reading requests need no proof; sockets need the Origin, which browsers always send with them (a
    one-time ticket follows as the first frame); all others the Origin and the session's CSRF token.

    Raises:
        CsrfFailed: one of them is missing or wrong.
    """
    scope = connection.scope
    if scope["type"] == ScopeType.HTTP and scope["method"] in _SAFE_METHODS:
        return
    check_origin(connection)
    if scope["type"] == ScopeType.HTTP and connection.headers.get(CSRF_HEADER) != csrf:
        raise CsrfFailed("the X-CSRF-Token is missing or not this session's; reload the page")


def check_origin(connection: Connection) -> None:
    """Check the Origin header against the hub's own addresses, exactly.

    Raises:
        CsrfFailed: there is none, or it is another's.
    """
    origin = connection.headers.get("origin")
    hub: Hub = connection.app.state.hub
    if origin is None or not hub.accounts.origins.allow(origin):
        raise CsrfFailed(
            f"the origin {origin or '(none)'} is not this hub's; open the hub by one of its own "
            "addresses, or start it with --public-url"
        )


def address_of(connection: Connection) -> str:
    """Return the caller's network address, empty when the server does not know it."""
    client = connection.scope.get("client")
    return client[0] if client else ""


async def provide_subject(scope: Scope) -> Subject:
    """Litestar dependency `subject`: who calls, as the route's guard found out."""
    subject: Subject = scope["user"]
    return subject
