"""What every tunnel is to the bench: three local ports, and whose CPU and memory it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.targets import Ports

Via = Callable[[int], int]
"""Where the agent finds a server's port: the same one, or a long link's (`link.py`)."""
Pids = Callable[[], list[int]]


def straight(port: int) -> int:
    """No link between agent and server."""
    return port


def nobody() -> list[int]:
    """A tunnel without this end."""
    return []


@dataclass(frozen=True, slots=True)
class TunnelPeer:
    """A tunnel that is up, and the ids of its processes."""

    name: str
    ports: Ports
    server: Pids = nobody
    """In the middle: the hub, the relay, sshd."""
    agent: Pids = nobody
    """At the targets."""
    client: Pids = nobody
    """At the local ports; none where the server itself listens on them."""

    def path(self) -> list[int]:
        """All of them."""
        return [*self.server(), *self.agent(), *self.client()]
