"""From stored rows to what the hub shows: nodes with their true status, groups with members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hub.node_reports import clean_facts, clean_packages
from hub.nodeview import NodeView, Status
from hub.store.groups import GroupRow
from hub.store.nodes import NodeRow


@dataclass(frozen=True, slots=True)
class GroupView:
    """A group and the names of its members, sorted."""

    name: str
    description: str
    created_at: float
    nodes: tuple[str, ...]


def group_of(row: GroupRow, members: Sequence[str]) -> GroupView:
    """Describe a group with the names of its members."""
    return GroupView(row.name, row.description, row.created_at, tuple(members))


def view_of(row: NodeRow, online: bool) -> NodeView:
    """Describe a node; `online`: a tunnel of it is open."""
    status, since = _standing(row, online)
    return NodeView(
        id=row.id,
        name=row.name,
        status=status,
        status_since=since,
        created_at=row.created_at,
        labels=row.labels,
        groups=row.groups,
        facts=clean_facts(row.facts),
        packages=clean_packages(row.packages),
        state_reason=row.state_reason,
        address=row.address,
        connected_at=row.connected_at,
        last_seen_at=row.last_seen_at,
        certificate_expires_at=row.certificate_expires_at,
    )


def moved(view: NodeView, online: bool) -> NodeView:
    """Describe the same node after its tunnel came or went at the view's own times."""
    if view.status in (Status.QUARANTINED, Status.REVOKED):
        return view
    since = view.connected_at if online else view.last_seen_at
    status = Status.ONLINE if online else Status.OFFLINE
    return replace(view, status=status, status_since=view.created_at if since is None else since)


def _standing(row: NodeRow, online: bool) -> tuple[Status, float]:
    """Say what a node's status is, and since when."""
    last_seen_at = row.created_at if row.last_seen_at is None else row.last_seen_at
    match row.state:
        case "revoked":
            return Status.REVOKED, last_seen_at if row.revoked_at is None else row.revoked_at
        case "quarantined":
            return Status.QUARANTINED, last_seen_at
        case _ if online:
            return Status.ONLINE, row.created_at if row.connected_at is None else row.connected_at
        case _ if row.last_seen_at is None:
            return Status.NEVER, row.created_at
        case _:
            return Status.OFFLINE, row.last_seen_at
