"""Where a hub is reached: its public URLs, and the host names that its certificates carry."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

import msgspec
import psutil

from hub.config import HubConfig

MAX_HOSTS = 64


def with_urls(config: HubConfig, port: int) -> HubConfig:
    """The configuration with at least one public URL, for the port that was really opened."""
    if config.public_urls:
        return config
    host = config.bind
    if _is_any(host):
        host = _outward_address() or "127.0.0.1"
    return msgspec.structs.replace(config, public_urls=(f"https://{_shown(host)}:{port}",))


def tunnel_urls(config: HubConfig, port: int | None) -> tuple[str, ...]:
    """Where nodes reach the hub: the public URLs, on the tunnels' own port when there is one."""
    if port is None:
        return config.public_urls
    hosts = (urlsplit(url).hostname or "" for url in config.public_urls)
    return tuple(dict.fromkeys(f"https://{_shown(host)}:{port}" for host in hosts))


def certificate_hosts(config: HubConfig) -> list[str]:
    """Names and addresses for the certificates of our own CA, without duplicates."""
    hosts = [urlsplit(url).hostname or "" for url in config.public_urls]
    hosts += ["localhost", "127.0.0.1", "::1"]
    if _is_any(config.bind):
        hosts += [socket.gethostname(), *own_addresses()]
    elif config.bind != "localhost":
        hosts.append(config.bind)
    return [host for host in dict.fromkeys(hosts) if _fits_certificate(host)][:MAX_HOSTS]


def own_addresses() -> list[str]:
    """This machine's addresses that others may use: no link-local ones."""
    found = []
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family in (socket.AF_INET, socket.AF_INET6):
                text = address.address.partition("%")[0]
                if not ipaddress.ip_address(text).is_link_local:
                    found.append(text)
    return sorted(set(found))


def _outward_address() -> str | None:
    """The first address that is not loopback, IPv4 before IPv6."""
    usable = [text for text in own_addresses() if not ipaddress.ip_address(text).is_loopback]
    return min(usable, key=lambda text: (":" in text, text), default=None)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_any(bind: str) -> bool:
    return bind != "localhost" and ipaddress.ip_address(bind).is_unspecified


def _fits_certificate(host: str) -> bool:
    return bool(host) and host.isascii() and "_" not in host
