"""One line of the policy's `forward` list: which targets it covers.

    node            the node itself: loopback and its own addresses     node:22
    10.1.2.3        an address                                          [fd00::1]:443
    10.0.0.0/8      a network                                           10.0.0.0/8:8000-8999
    db.internal     a name, as it was asked for                         db.internal:5432
    *               everything else                                     *:443

Link-local and cloud metadata addresses hand out credentials: only a rule that names such an address
or a network inside that range covers them; `node`, `*`, a name and a wider network never do.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TypeAlias

Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_GUARDED: tuple[Network, ...] = (
    ipaddress.ip_network("169.254.0.0/16"),  # link-local, and metadata at nearly all clouds
    ipaddress.ip_network("fe80::/10"),
    ipaddress.ip_network("fd00:ec2::254/128"),  # AWS
    ipaddress.ip_network("fd20:ce::254/128"),  # Google Cloud
    ipaddress.ip_network("100.100.100.200/32"),  # Alibaba Cloud
    ipaddress.ip_network("168.63.129.16/32"),  # Azure
    ipaddress.ip_network("192.0.0.192/32"),  # Oracle Cloud
)
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252}[A-Za-z0-9_])?")
_PORTS = range(1, 65536)


@dataclass(frozen=True, slots=True)
class ForwardRule:
    """A target and a range of ports."""

    target: str | Network
    """`node`, `*`, a host name in lower case, or a network."""
    ports: range

    def matches(self, host: str, address: Address, port: int, *, is_own: bool) -> bool:
        """Say whether the rule covers a connection.

        Args:
            host: What was asked for.
            address: What will be connected to, as `normal` gives it.
            port: The TCP port.
            is_own: Whether the address is one of the node's own.
        """
        if port not in self.ports:
            return False
        if not isinstance(self.target, str):
            return address in self.target and (
                not is_guarded(address) or _is_inside_guarded(self.target)
            )
        if is_guarded(address):
            return False
        return (
            self.target == "*"
            or (self.target == "node" and is_own)
            or self.target == host.rstrip(".").lower()
        )


def parse_rule(text: str) -> ForwardRule:
    """Parse one rule.

    Raises:
        ValueError: It isn't one; the text says what is wrong.
    """
    target, ports = _split(text)
    if target in ("node", "*"):
        return ForwardRule(target, _parse_ports(text, ports))
    try:
        return ForwardRule(ipaddress.ip_network(target), _parse_ports(text, ports))
    except ValueError as error:
        looks_numeric = "/" in target or ":" in target or re.fullmatch(r"[0-9.]+", target)
        if looks_numeric or not _HOST.fullmatch(target):
            raise ValueError(f"forward rule {text!r}: {error}") from None
    return ForwardRule(target.rstrip(".").lower(), _parse_ports(text, ports))


def parse_listen_rule(text: str) -> ForwardRule:
    """Parse one rule of the policy's `listen` list: an address, a network, or `*`, and ports.

    Raises:
        ValueError: It isn't one; the text says what is wrong.
    """
    rule = parse_rule(text)
    if isinstance(rule.target, str) and rule.target != "*":
        raise ValueError(f"listen rule {text!r}: expected an address, a network or *, and ports")
    return rule


def parse_address(text: str) -> Address:
    """Parse an address to listen on.

    Raises:
        ValueError: It is no IP address.
    """
    return ipaddress.ip_address(text.strip("[]").partition("%")[0])


def normal(address: Address) -> Address:
    """Return the IPv4 address inside an IPv4-mapped IPv6 one, and any other as it is."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def is_guarded(address: Address) -> bool:
    """Say whether the address is link-local or a cloud's metadata service."""
    return any(address in network for network in _GUARDED)


def _is_inside_guarded(network: Network) -> bool:
    return any(
        network.version == guarded.version
        and network.network_address in guarded
        and network.broadcast_address in guarded
        for guarded in _GUARDED
    )


def _split(text: str) -> tuple[str, str]:
    if text.startswith("["):
        target, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"forward rule {text!r}: expected [ADDRESS] or [ADDRESS]:PORT")
        return target, rest[1:] or "*"
    if text.count(":") > 1:  # an IPv6 address or network without port
        return text, "*"
    target, _, ports = text.partition(":")
    return target, ports or "*"


def _parse_ports(text: str, ports: str) -> range:
    if ports == "*":
        return _PORTS
    low, dash, high = ports.partition("-")
    try:
        first, last = int(low), int(high if dash else low)
    except ValueError:
        raise ValueError(f"forward rule {text!r}: {ports!r} is no port, LOW-HIGH or *") from None
    if not (first in _PORTS and last in _PORTS and first <= last):
        raise ValueError(f"forward rule {text!r}: ports are 1 to 65535, the lower one first")
    return range(first, last + 1)
