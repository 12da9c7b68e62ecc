"""What every tunnel is to the bench: three local ports, and whose CPU it costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.bench.targets import Ports


@dataclass(frozen=True, slots=True)
class TunnelPeer:
    """A tunnel that is up. `ports.echo` is 0 when it carries none."""

    name: str
    ports: Ports
    server: Callable[[], list[int]]
    """Ids of the processes in the middle: the hub's, the server's."""
    path: Callable[[], list[int]]
    """Ids of all processes of the tunnel."""
