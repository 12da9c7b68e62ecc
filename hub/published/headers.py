"""What passes of a request's and an answer's headers between a browser and a published service.

The rule it guards: the service learns nothing that opens the hub (cookies, tokens, secret paths),
cannot be lied to about who asks, and says nothing that reaches beyond its own pages: no cookie for
another host, no policy for the hub's origin. Below the hub's own address only headers that are
known to be harmless pass; at a host name of its own all but the known harmful ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

Headers = list[tuple[bytes, bytes]]

ENTRY_COOKIE = "__Host-mooring-published"
RESERVED_COOKIES = b"__host-mooring"
"""Beginning of the names, in lower case, that no service may set or see."""
SANDBOX = "sandbox allow-scripts allow-forms allow-popups allow-downloads allow-modals"
"""Without allow-same-origin: the page's origin is opaque, the hub's API is out of its reach."""

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-authentication-info "
    b"proxy-connection te trailer transfer-encoding upgrade expect http2-settings".split()
)
_OURS = (b"x-forwarded-", b"x-mooring-")
_NEVER_IN = _HOP_BY_HOP | {b"host", b"cookie", b"forwarded", b"x-real-ip", b"x-original-url",
    b"x-rewrite-url", b"origin"}  # fmt: skip
_NEVER_IN_PATH_MODE = (b"authorization", b"referer", b"sec-fetch-")
_NEVER_OUT = _HOP_BY_HOP | set(
    b"alt-svc clear-site-data nel report-to reporting-endpoints public-key-pins set-cookie2 "
    b"service-worker-allowed strict-transport-security x-accel-redirect x-sendfile".split()
)
_OUT_IN_PATH_MODE = frozenset(
    b"accept-ranges age allow cache-control content-disposition content-encoding content-language "
    b"content-length content-range content-security-policy content-type date etag expires "
    b"last-modified location retry-after server vary warning".split()
)
_TOKEN_PREFIX = b"bearer moor_"


@dataclass(frozen=True, slots=True)
class Place:
    """Where one request meets a service: as the browser sees it, and as the service does."""

    host: str
    """The `Host` that the browser asked for."""
    prefix: str
    """The secret part of the path; empty for a service with a host name of its own."""
    service_host: str
    """The `Host` that the service is told."""
    service_origin: str
    """Scheme and address at which the service itself thinks it is."""
    user: str
    client: str

    @property
    def origin(self) -> str:
        """The web origin of the service's pages, as browsers write it."""
        return "null" if self.prefix else f"https://{self.host}"


def to_service(headers: Iterable[tuple[bytes, bytes]], place: Place) -> Headers:
    """Make the headers of the request that the service gets.

    The browser's `Origin` was compared with the service's own before; the service gets the one
    that fits its `Host`, so that its own comparison holds.
    """
    given = [(name.lower(), value) for name, value in headers]
    dropped = _NEVER_IN | _named_by_connection(given)
    prefixes = _OURS + (_NEVER_IN_PATH_MODE if place.prefix else ())
    passed = [(b"host", place.service_host.encode())]
    for name, value in given:
        meant = name.replace(b"_", b"-")  # many services take both for the same name
        if meant in dropped or meant.startswith(prefixes):
            continue
        if name == b"authorization" and value.lower().startswith(_TOKEN_PREFIX):
            continue
        passed.append((name, value))
    if not place.prefix:
        passed += _cookies(value for name, value in given if name == b"cookie")
    if any(name == b"origin" for name, _ in given):
        passed.append((b"origin", place.service_origin.encode()))
    passed += [
        (b"x-forwarded-for", place.client.encode()),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", place.host.encode()),
        (b"x-mooring-user", place.user.encode()),
    ]
    if place.prefix:
        passed.append((b"x-forwarded-prefix", place.prefix.encode()))
    return passed


def to_browser(headers: Iterable[tuple[bytes, bytes]], place: Place) -> Headers:
    """Make the headers of the answer that the browser gets."""
    given = [(name.lower(), value) for name, value in headers]
    dropped = _NEVER_OUT | _named_by_connection(given)
    if any(name == b"transfer-encoding" for name, _ in given):
        dropped = dropped | {b"content-length"}
    passed: Headers = []
    for name, value in given:
        if name in dropped or (place.prefix and not _is_harmless(name)):
            continue
        if name == b"location":
            passed.append((name, _location(value, place)))
        elif name == b"set-cookie":
            passed += [(name, cookie) for cookie in _set_cookie(value)]
        else:
            passed.append((name, value))
    return passed + (path_mode_headers() if place.prefix else [])


def path_mode_headers() -> Headers:
    """Return what every answer below the hub's own address carries.

    The page's origin is opaque, so its own requests count as another origin's: they are let read
    the answers, which only who knows the secret path can ask for.
    """
    return [
        (b"content-security-policy", SANDBOX.encode()),
        (b"referrer-policy", b"no-referrer"),
        (b"access-control-allow-origin", b"null"),
        (b"access-control-expose-headers", b"*"),
    ]


def cookie_of(headers: Iterable[tuple[bytes, bytes]], cookie: str) -> str | None:
    """Return the value of a request's cookie."""
    for name, value in headers:
        if name.lower() == b"cookie":
            for part in value.split(b";"):
                key, _, held = part.strip().partition(b"=")
                if key == cookie.encode():
                    return held.decode("latin-1")
    return None


def _named_by_connection(headers: Headers) -> frozenset[bytes]:
    return frozenset(
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    ) - {b"content-length"}


def _cookies(values: Iterable[bytes]) -> Headers:
    """Return the service's own cookies as one header."""
    parts = [part.strip() for value in values for part in value.split(b";")]
    own = [part for part in parts if part and not part.lower().startswith(RESERVED_COOKIES)]
    return [(b"cookie", b"; ".join(own))] if own else []


def _set_cookie(value: bytes) -> list[bytes]:
    """Return a cookie without `Domain`, so that it stays on this host; none when it is reserved.

    A cookie without a name is dropped: its value could be sent back as a reserved name.
    """
    pair, *attributes = value.split(b";")
    name = pair.partition(b"=")[0].strip()
    if b"=" not in pair or not name or name.lower().startswith(RESERVED_COOKIES):
        return []
    kept = [a for a in attributes if a.partition(b"=")[0].strip().lower() != b"domain"]
    return [b";".join([pair, *kept])]


def _is_harmless(name: bytes) -> bool:
    return name in _OUT_IN_PATH_MODE or name.startswith(b"x-")


def _location(value: bytes, place: Place) -> bytes:
    """Lead a redirect to the service's own address to where browsers find it."""
    own = "|".join(re.escape(host) for host in {place.service_host, place.host})
    found = re.fullmatch(rf"https?://(?:{own})(/.*|\?.*|)".encode(), value, re.IGNORECASE)
    path = found[1] if found else value
    prefix = place.prefix.encode()
    if found and not path.startswith(b"/"):
        path = b"/" + path
    is_path = path.startswith(b"/") and not path.startswith((b"//", b"/\\"))
    if is_path and prefix and not path.startswith(prefix + b"/"):
        return prefix + path
    return path
