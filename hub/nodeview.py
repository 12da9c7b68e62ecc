"""`NodeView`: a node as the hub's parts see it, frozen, without SQL.

`hub.nodes` holds one per node and replaces it after each committed change; targets are evaluated
over views and the API encodes them. A view that somebody holds never changes under them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from protocol.messages import Disk, Facts, InstalledPackage


class NodeDisk(Disk, frozen=True, tag=False, omit_defaults=False):
    """A mounted file system."""


class NodeFacts(Facts, frozen=True, tag=False, omit_defaults=False):
    """What a node said of itself, cleaned; encoded with all its fields and without the tag."""

    disks: list[NodeDisk] = msgspec.field(default_factory=list)  # type: ignore[assignment]


class NodePackage(InstalledPackage, frozen=True, tag=False, omit_defaults=False):
    """A package that Mooring installed on the node."""


class Status(StrEnum):
    """Whether a node can be reached, as far as the hub truly knows."""

    ONLINE = "online"
    OFFLINE = "offline"
    NEVER = "never"
    """Joined, and has not connected since."""
    QUARANTINED = "quarantined"
    REVOKED = "revoked"


NO_FACTS = NodeFacts(hostname="")


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node; times are seconds since the epoch on the hub's clock."""

    id: str
    name: str
    status: Status
    status_since: float
    created_at: float
    labels: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] = ()
    """Names, sorted."""
    facts: NodeFacts = NO_FACTS
    packages: tuple[NodePackage, ...] = ()
    state_reason: str = ""
    """Why it is quarantined or revoked."""
    address: str | None = None
    connected_at: float | None = None
    """Start of the present or last tunnel."""
    last_seen_at: float | None = None
    """End of the last tunnel."""
    certificate_expires_at: float | None = None
