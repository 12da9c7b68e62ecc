"""Which proxy, if any, leads to a hub.

`agent.json` wins when it names one; else the environment decides as curl and Go's programs read it:
`HTTPS_PROXY`, then `ALL_PROXY`, unless `NO_PROXY` names the hub. Lower case wins over upper case,
also when it is empty.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

DIRECT = "direct"
"""As `AgentConfig.proxy`: never a proxy, whatever the environment says."""

_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


class BadProxy(ValueError):
    """A proxy's URL can't be used; the text never holds its credentials."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy; `str` gives its URL without credentials."""

    scheme: str
    """`http`, `https` or `socks5`."""
    host: str
    port: int
    username: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Route:
    """The way to one hub."""

    proxy: Proxy | None
    why: str
    """What decided it: `agent.json`, a variable's name, or why there is no proxy."""


def parse_proxy(url: str) -> Proxy:
    """Read a proxy's URL; `host:port` alone is an HTTP proxy.

    Raises:
        BadProxy: with what is wrong.
    """
    scheme, separator, rest = url.strip().partition("://")
    if not separator:
        scheme, rest = "http", scheme
    scheme = scheme.lower()
    if scheme not in _PORTS:
        known = "http://, https:// and socks5://"
        raise BadProxy(f"proxies of the kind {scheme[:20]!r} are not known: use {known}")
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname or "", parts.port or _PORTS[scheme]
        username, password = parts.username, unquote(parts.password or "", errors="strict")
        username = unquote(username, errors="strict") if username else None
    except ValueError:
        host = ""
    if not re.fullmatch(r"[A-Za-z0-9._:%-]{1,255}", host) or parts.path.strip("/") or parts.query:
        raise BadProxy(
            f"the proxy's URL is malformed: write {scheme}://HOST:PORT or {scheme}://USER:PASSWORD"
            "@HOST:PORT, with special characters of user and password percent-encoded"
        )
    return Proxy(scheme.removesuffix("h"), host, port, username, password)


def route_to(hub: str, setting: str | None, environ: Mapping[str, str] = os.environ) -> Route:
    """Choose the way to a hub.

    Args:
        hub: https://host[:port].
        setting: what `agent.json` says: a proxy's URL, `DIRECT`, or None for the environment.
        environ: the environment.

    Raises:
        BadProxy: the proxy that is named can't be used.
    """
    if setting == DIRECT:
        return Route(None, "agent.json says so")
    if setting is not None:
        return Route(_named(setting, "agent.json"), "agent.json")
    for name in ("HTTPS_PROXY", "ALL_PROXY"):
        if url := _variable(environ, name):
            break
    else:
        return Route(None, "no proxy is set")
    parts = urlsplit(hub)
    if rule := exempting(_variable(environ, "NO_PROXY"), parts.hostname or "", parts.port or 443):
        return Route(None, f"NO_PROXY names {rule}")
    return Route(_named(url, name), name)


def _named(url: str, source: str) -> Proxy:
    try:
        return parse_proxy(url)
    except BadProxy as error:
        raise BadProxy(f"{source}: {error}") from error


def _variable(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name.lower(), environ.get(name, "")).strip()


def exempting(no_proxy: str, host: str, port: int) -> str | None:
    """Return the entry of `NO_PROXY` that exempts a host, or None.

    Entries are separated by commas or white space: `*` exempts all, `name` the name and all below
    it, `.name` and `*.name` what is below it, an address or a network (10.0.0.0/8, fd00::/8) the
    hosts that are given by such an address; `:port` behind any but a network narrows it. Names are
    not resolved for it.
    """
    for entry in re.split(r"[,\s]+", no_proxy):
        if entry and _exempts(entry.lower(), host.rstrip(".").lower(), port):
            return entry
    return None


def _exempts(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    address = _address(host)
    if address is not None and "/" in entry:
        return _within(address, entry)
    name, only_port = _split_port(entry)
    if only_port not in (None, port):
        return False
    if address is not None:
        return _address(name) == address
    below = name.removeprefix("*")
    return host == below or (below != "" and host.endswith("." + below.lstrip(".")))


def _split_port(entry: str) -> tuple[str, int | None]:
    """Split `name:port`, `1.2.3.4:port`, `[::1]:port`; an IPv6 address alone has no port."""
    if bracketed := re.fullmatch(r"\[([^\]]*)\](?::(\d{1,5}))?", entry):
        name, port = bracketed[1], bracketed[2]
    elif entry.count(":") == 1:
        name, port = entry.split(":")
    else:
        return entry, None
    if not port:
        return name, None
    return name, int(port) if port.isascii() and port.isdigit() else -1


def _address(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _within(address: _Address, network: str) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
