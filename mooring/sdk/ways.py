"""Ways through nodes, as the hub answers them: forwards, links and published services.

What `models` says of times, and of fields that one side does not know, holds here too.
"""

from __future__ import annotations

import msgspec

from mooring.sdk.models import Model


class ForwardedConnection(Model, frozen=True):
    """A connection that is being carried."""

    id: str
    peer: str = ""
    """Who connected, as whoever accepted the connection saw it."""
    host: str = ""
    port: int | None = None
    since: float | None = None
    last_activity: float | None = None
    sent_bytes: int = 0
    received_bytes: int = 0


class OpenForward(Model, frozen=True):
    """One way through nodes, however many connections it carries."""

    id: str
    node: str
    kind: str = "local"
    """local, socks, ssh-proxy, reverse, link or published."""
    subject: str = ""
    host: str = ""
    """Empty for socks, which goes anywhere, and reverse, whose target the client chooses."""
    port: int | None = None
    bind: str | None = None
    """Where the node listens, for what begins there."""
    listen_port: int | None = None
    to_node: str | None = None
    """Where a link comes out."""
    name: str = ""
    """Of the link or the published service."""
    since: float | None = None
    last_activity: float | None = None
    connections: int = 0
    """Open now."""
    connections_total: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    open_connections: list[ForwardedConnection] = msgspec.field(default_factory=list)
    """When one forward was asked for; the 500 oldest."""


class Link(Model, frozen=True):
    """A port on one node that comes out on another, kept by the hub."""

    name: str
    from_node: str
    port: int
    to_node: str
    to_port: int
    bind: str = "127.0.0.1"
    host: str = "127.0.0.1"
    enabled: bool = True
    state: str = ""
    """up, waiting, refused or disabled."""
    reason: str = ""
    """Why it is not up, or what its last connection met."""
    forward: str | None = None
    """The id of its forward while its port is open."""
    created_by: str = ""
    created_at: float | None = None


class PublishedService(Model, frozen=True):
    """An HTTP service of a node in the browsers of who is signed in; counts since hub's start."""

    name: str
    node: str
    port: int
    url: str
    """Where a browser finds it."""
    host: str = "127.0.0.1"
    scheme: str = "http"
    verify: bool = False
    host_name: str | None = None
    keep_host: bool = False
    created_by: str = ""
    created_at: float | None = None
    requests: int = 0
    active: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
