"""The web origins whose pages are this hub's own.

The rule it guards: a browser's mutating request or socket is taken only when its Origin is exactly
one of these; the Host header, which an attacker may choose, says nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL as a browser writes them in `Origin`."""
    parts = urlsplit(url)
    return _origin(parts.scheme.lower(), parts.hostname or "", parts.port)


def _origin(scheme: str, host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    default = {"https": 443, "http": 80}.get(scheme)
    return f"{scheme}://{shown}" if port in (None, default) else f"{scheme}://{shown}:{port}"


def _is_loopback_or_any(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address == "localhost"
    return parsed.is_loopback or parsed.is_unspecified


class Origins:
    """The public URLs' origins, and those of the address that the hub listens on."""

    def __init__(self, public_urls: Iterable[str] = ()) -> None:
        self._allowed = frozenset(origin_of(url) for url in public_urls)

    def listening(self, address: str, port: int) -> None:
        """Add the origins of a listening address; loopback is known by three names."""
        hosts = {address}
        if _is_loopback_or_any(address):
            hosts |= {"localhost", "127.0.0.1", "::1"}
        self._allowed |= {_origin("https", host, port) for host in hosts}

    def allow(self, origin: str) -> bool:
        """Say whether the origin is one of the hub's own."""
        return origin in self._allowed

    def all(self) -> frozenset[str]:
        """Return the hub's own origins."""
        return self._allowed
