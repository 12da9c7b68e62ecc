"""Nodes: `/nodes`; listed from memory, by name.

The rule it guards: changing a name, removing, revoking and releasing are an administrator's;
labels and groups an operator's. The cursor of a page is the last name on it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Annotated

import msgspec
from litestar import Controller, delete, get, patch, post
from litestar.params import Parameter
from msgspec import Meta

from hub.api.audit import before_of
from hub.api.guards import requires
from hub.authz import Subject, Verb, authorize
from hub.core import Hub
from hub.events import Event
from hub.metrics import Spark
from hub.nodes import NodeChange
from hub.nodeview import NodeFacts, NodePackage, NodeView

Target = Annotated[str | None, Parameter(description="a target expression")]
Limit = Annotated[int, Parameter(ge=1, le=500)]
Cursor = Annotated[str | None, Parameter(max_length=64)]


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A node; times are seconds since the epoch on the hub's clock."""

    id: str
    name: str
    status: str
    """online, offline, never, quarantined or revoked."""
    status_since: float
    status_reason: str
    """Why it is quarantined or revoked."""
    groups: tuple[str, ...]
    labels: Mapping[str, str]
    packages: tuple[NodePackage, ...]
    facts: NodeFacts
    address: str | None
    created_at: float
    connected_at: float | None
    last_seen_at: float | None
    rtt_ms: float | None
    certificate_expires_at: float | None
    spark: Spark


class NodeList(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the nodes, by name."""

    items: list[Node]
    next_cursor: str | None
    total: int


class NodePatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to change of a node; labels and groups replace what was there."""

    name: str | None = None
    labels: dict[str, str] | None = None
    groups: list[str] | None = None


class Revocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a node's certificates are revoked."""

    reason: Annotated[str, Meta(max_length=1000)] = ""


class NodeEvents(msgspec.Struct, frozen=True, kw_only=True):
    """Some of a node's events, newest first; `total` counts these."""

    items: list[Event]
    next_cursor: str | None
    total: int


class NodesController(Controller):
    """Nodes."""

    path = "/nodes"
    tags = ("nodes",)

    @get(guards=[requires(Verb.VIEW)])
    async def list_nodes(
        self, hub: Hub, target: Target = None, limit: Limit = 100, cursor: Cursor = None
    ) -> NodeList:
        """List nodes: all, or those that a target matches; none matching is `nothing_matches`."""
        views = hub.nodes.all() if target is None else hub.nodes.select(target)
        start = 0 if cursor is None else bisect_right(views, cursor, key=lambda view: view.name)
        shown = views[start : start + limit]
        return NodeList(
            items=[node_of(hub, view) for view in shown],
            next_cursor=shown[-1].name if start + limit < len(views) else None,
            total=len(views),
        )

    @get("/{node:str}", guards=[requires(Verb.VIEW)])
    async def get_node(self, hub: Hub, node: str) -> Node:
        """Show a node, by name or id."""
        return node_of(hub, hub.nodes.get(node))

    @patch("/{node:str}", guards=[requires(Verb.GROUPS)])
    async def change_node(self, hub: Hub, subject: Subject, node: str, data: NodePatch) -> Node:
        """Rename, label or regroup a node, all or nothing."""
        if data.name is not None:
            authorize(subject, Verb.ADMIN, hub.nodes.get(node).name)
        change = NodeChange(data.name, data.labels, data.groups)
        return node_of(hub, await hub.nodes.update(subject, node, change))

    @delete("/{node:str}", guards=[requires(Verb.ADMIN)])
    async def remove_node(self, hub: Hub, subject: Subject, node: str) -> None:
        """Revoke a node's certificates, cut its tunnel, and forget it."""
        node_id = hub.nodes.get(node).id
        await hub.enrolment.remove(subject, node_id)
        hub.nodes.forget(node_id)
        hub.metrics.forget(node_id)

    @post("/{node:str}/revoke", guards=[requires(Verb.ADMIN)], status_code=200)
    async def revoke_node(self, hub: Hub, subject: Subject, node: str, data: Revocation) -> Node:
        """Revoke a node's certificates and cut its tunnel."""
        node_id = hub.nodes.get(node).id
        await hub.enrolment.revoke(subject, node_id, data.reason)
        await hub.nodes.refresh(node_id)
        return node_of(hub, hub.nodes.get(node_id))

    @post("/{node:str}/release", guards=[requires(Verb.ADMIN)], status_code=200)
    async def release_node(self, hub: Hub, subject: Subject, node: str) -> Node:
        """Let a quarantined node in again."""
        node_id = hub.nodes.get(node).id
        await hub.enrolment.release(subject, node_id)
        hub.registry.forget(node_id)
        await hub.nodes.refresh(node_id)
        return node_of(hub, hub.nodes.get(node_id))

    @get("/{node:str}/events", guards=[requires(Verb.VIEW)])
    async def list_node_events(
        self, hub: Hub, node: str, limit: Limit = 100, cursor: Cursor = None
    ) -> NodeEvents:
        """List what happened to a node, newest first."""
        node_id = hub.nodes.get(node).id
        events = await hub.events.of_node(node_id, limit, before=before_of(cursor))
        is_last = len(events) < limit
        return NodeEvents(
            items=events,
            next_cursor=None if is_last else str(events[-1].id),
            total=len(events),
        )


def node_of(hub: Hub, view: NodeView) -> Node:
    """Describe a node as the API shows it."""
    return Node(
        id=view.id,
        name=view.name,
        status=view.status,
        status_since=view.status_since,
        status_reason=view.state_reason,
        groups=view.groups,
        labels=view.labels,
        packages=view.packages,
        facts=view.facts,
        address=view.address,
        created_at=view.created_at,
        connected_at=view.connected_at,
        last_seen_at=view.last_seen_at,
        rtt_ms=hub.registry.rtt_ms(view.id),
        certificate_expires_at=view.certificate_expires_at,
        spark=hub.metrics.spark(view.id),
    )
