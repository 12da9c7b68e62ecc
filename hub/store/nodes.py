"""Queries on nodes; functions take the connection first.

The rule it guards: a change and the row that results from it are one unit, so that what `hub.nodes`
keeps in memory is always a row that was committed. `hub.nodes` is the only caller.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.errors import Conflict, NotFound
from hub.store.schema import certificates, groups, memberships, nodes
from hub.store.settings import get_setting, put_setting

ALIVE_AT = "hub.alive_at"
"""The setting that says when the hub last knew to be running."""


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node as stored, with its groups and what its certificates say."""

    id: str
    name: str
    labels: Mapping[str, str]
    facts: Any
    packages: Any
    state: str
    state_reason: str
    created_at: float
    connected_at: float | None
    last_seen_at: float | None
    address: str | None
    groups: tuple[str, ...]
    certificate_expires_at: float | None
    revoked_at: float | None


async def all_nodes(connection: AsyncConnection) -> list[NodeRow]:
    """Return every node."""
    members: defaultdict[str, list[str]] = defaultdict(list)
    query = select(memberships.c.node_id, groups.c.name).join_from(memberships, groups)
    for node_id, group in await connection.execute(query):
        members[node_id].append(group)
    papers = {row.node_id: row for row in await connection.execute(_PAPERS)}
    rows = await connection.execute(select(nodes))
    return [_node(row, members[row.id], papers.get(row.id)) for row in rows]


async def node_by_id(connection: AsyncConnection, node_id: str) -> NodeRow | None:
    """Return one node, None when there is none."""
    row = (await connection.execute(select(nodes).where(nodes.c.id == node_id))).one_or_none()
    if row is None:
        return None
    query = select(groups.c.name).join_from(memberships, groups)
    members = await connection.scalars(query.where(memberships.c.node_id == node_id))
    papers = await connection.execute(_PAPERS.where(certificates.c.node_id == node_id))
    return _node(row, list(members), papers.one_or_none())


async def change_node(
    connection: AsyncConnection,
    node_id: str,
    *,
    values: Mapping[str, Any],
    group_names: Sequence[str] | None = None,
) -> NodeRow:
    """Set columns of a node, and its groups when they are given; return the row that results.

    Raises:
        NotFound: there is no such node or group.
        Conflict: another node has the name.
    """
    if "name" in values:
        await _check_name_is_free(connection, node_id, values["name"])
    if values:
        await connection.execute(update(nodes).where(nodes.c.id == node_id).values(**values))
    if group_names is not None:
        await _set_groups(connection, node_id, group_names)
    row = await node_by_id(connection, node_id)
    if row is None:
        raise NotFound("node", node_id)
    return row


async def move_nodes(
    connection: AsyncConnection, moves: Sequence[tuple[str, float, str | None]]
) -> None:
    """Store (id, time, address) of nodes that came, or without address went; some may be gone."""
    came = [{"node": node, "at": at, "from": peer} for node, at, peer in moves if peer is not None]
    went = [{"node": node, "at": at} for node, at, peer in moves if peer is None]
    if came:
        await connection.execute(_CAME, came)
    if went:
        await connection.execute(_WENT, went)


async def end_presence(connection: AsyncConnection) -> None:
    """At the hub's start: whoever was connected when it ended was last seen when it last lived."""
    alive_at = await get_setting(connection, ALIVE_AT)
    was_connected = nodes.c.connected_at.is_not(None) & (
        nodes.c.last_seen_at.is_(None) | (nodes.c.last_seen_at < nodes.c.connected_at)
    )
    seen = func.max(nodes.c.connected_at, float(alive_at or 0.0))
    await connection.execute(update(nodes).where(was_connected).values(last_seen_at=seen))


async def note_alive(connection: AsyncConnection, now: float) -> None:
    """Store that the hub is running."""
    await put_setting(connection, ALIVE_AT, now)


_CAME = (
    update(nodes)
    .where(nodes.c.id == bindparam("node"))
    .values(connected_at=bindparam("at"), address=bindparam("from"))
)
_WENT = update(nodes).where(nodes.c.id == bindparam("node")).values(last_seen_at=bindparam("at"))
_PAPERS = select(
    certificates.c.node_id,
    func.max(certificates.c.not_after).label("expires_at"),
    func.max(certificates.c.revoked_at).label("revoked_at"),
).group_by(certificates.c.node_id)


async def _check_name_is_free(connection: AsyncConnection, node_id: str, name: str) -> None:
    other = select(nodes.c.id).where(nodes.c.name == name, nodes.c.id != node_id)
    if await connection.scalar(other) is not None:
        raise Conflict(f"another node is called {name!r}; choose another name")


async def _set_groups(connection: AsyncConnection, node_id: str, names: Sequence[str]) -> None:
    found = await connection.execute(
        select(groups.c.name, groups.c.id).where(groups.c.name.in_(names))
    )
    ids = {row.name: row.id for row in found}
    for name in names:
        if name not in ids:
            raise NotFound("group", name)
    await connection.execute(delete(memberships).where(memberships.c.node_id == node_id))
    if ids:
        rows = [{"group_id": group_id, "node_id": node_id} for group_id in ids.values()]
        await connection.execute(insert(memberships), rows)


def _node(
    row: Row[Any, Any, Any], members: Sequence[str], papers: Row[Any, Any, Any] | None
) -> NodeRow:
    return NodeRow(
        id=row.id,
        name=row.name,
        labels=row.labels,
        facts=row.facts,
        packages=row.packages,
        state=row.state,
        state_reason=row.state_reason,
        created_at=row.created_at,
        connected_at=row.connected_at,
        last_seen_at=row.last_seen_at,
        address=row.address,
        groups=tuple(sorted(members)),
        certificate_expires_at=papers.expires_at if papers else None,
        revoked_at=papers.revoked_at if papers else None,
    )
