"""What `mooring simulate` writes to a fleet's standard input, and what the fleet answers.

One `Orders` in JSON on one line; then the pipe stays open, and its end stops the fleet. The answers
are a `Tally` in JSON on one line each second.
"""

from __future__ import annotations

import msgspec


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What one process simulates."""

    hub: str
    """https://host:port, for joining."""
    state_dir: str
    """Each agent keeps its identity in a directory below, by its name."""
    names: list[str]
    joins: dict[str, list[str]]
    """By join token: those of `names` that have to join first."""
    metrics_s: float
    """Seconds between samples; 0: none."""


class Tally(msgspec.Struct, kw_only=True):
    """How a fleet, or several, is doing."""

    agents: int = 0
    joined: int = 0
    connected: int = 0
    dialling: int = 0
    handshakes: int = 0
    """Tunnels that came to their HELLO, since the start."""
    failures: int = 0
    """Attempts that did not, and tunnels whose duties failed."""
    commands: int = 0
    """Commands answered."""
    last_failure: str = ""

    def fail(self, why: str) -> None:
        """Count a failure."""
        self.failures += 1
        self.last_failure = why

    def add(self, other: Tally) -> None:
        """Count another fleet in."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.last_failure = other.last_failure or self.last_failure


_COUNTS = [name for name in Tally.__struct_fields__ if name != "last_failure"]
