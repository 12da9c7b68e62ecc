"""What a forward is, and how the API shows one and its connections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["local", "socks", "ssh-proxy", "reverse", "link", "published"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What a forward is. Two equal ways of one client are one forward."""

    kind: Kind
    node: str
    """The id of the node that connects, or that listens for `reverse` and `link`."""
    host: str = ""
    """Where connections go; empty when only the client knows."""
    port: int | None = None
    bind: str | None = None
    """Where the node, or the hub, listens."""
    listen_port: int | None = None
    to_node: str | None = None
    """The id of the node where a link comes out."""
    name: str = ""
    """Of the link or the published service."""


class ForwardView(msgspec.Struct, frozen=True, kw_only=True):
    """An open forward as the API shows it."""

    id: str
    kind: Kind
    node: str
    subject: str
    host: str
    """Empty for `socks`, which goes anywhere, and `reverse`, whose target the client chooses."""
    port: int | None
    bind: str | None
    listen_port: int | None
    to_node: str | None
    name: str
    since: float
    """Seconds since the epoch."""
    last_activity: float
    """When a byte last passed, seconds since the epoch, within 5 s."""
    connections: int
    """Open now."""
    connections_total: int
    sent_bytes: int
    """From whoever connected to the target."""
    received_bytes: int


class ConnectionView(msgspec.Struct, frozen=True, kw_only=True):
    """An open connection of a forward."""

    id: str
    peer: str
    """Who connected: an address, as whoever accepted the connection saw it."""
    host: str
    port: int | None
    since: float
    last_activity: float
    sent_bytes: int
    received_bytes: int


class ForwardDetail(ForwardView, frozen=True, kw_only=True):
    """A forward with its open connections, 500 at most."""

    open_connections: list[ConnectionView]
