"""`Visit`: one request or socket to a service, by a browser that has entered it."""

from __future__ import annotations

from dataclasses import dataclass

from hub.published.asgi import Call
from hub.published.entries import Entry
from hub.published.headers import Place
from hub.published.services import Service

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Visit:
    """Who visits what."""

    call: Call
    service: Service
    entry: Entry
    place: Place
    target: bytes
    """Path and query as the service is asked for them."""

    def comes_from_own_page(self) -> bool:
        """Say whether a page of the service itself asks, or a person who goes there.

        A cookie does not prove it: hosts of one domain get each other's requests with it.
        """
        call = self.call
        origin, site = call.header(b"origin"), call.header(b"sec-fetch-site")
        if call.is_socket:
            return origin == self.place.origin
        if self.place.prefix:
            return origin in (None, self.place.origin)
        if site is not None:
            is_page = call.header(b"sec-fetch-dest") == "document"
            return site in ("same-origin", "none") or (is_page and call.is_navigation())
        return call.scope["method"] in _READING or origin == self.place.origin

    def is_preflight(self) -> bool:
        """Say whether a sandboxed page asks the server what it may ask the service.

        Its origin is not the service's address, so the browser asks; the service could not know.
        """
        return (
            bool(self.place.prefix)
            and self.call.scope.get("method") == "OPTIONS"
            and self.call.header(b"access-control-request-method") is not None
        )
