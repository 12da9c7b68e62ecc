"""Queries on the stored events; `hub.events` is their only user."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.store.schema import events


async def insert_event(
    connection: AsyncConnection,
    at: float,
    kind: str,
    node_id: str | None,
    node: str | None,
    data: Any,
) -> int:
    """Store an event with the node's name as it is now; return its id."""
    document = {"node": node, "data": data}
    row = {"at": at, "kind": kind, "node_id": node_id, "data": document}
    result = await connection.execute(insert(events).values(row).returning(events.c.id))
    new_id: int = result.scalar_one()
    return new_id


async def newest_id(connection: AsyncConnection) -> int:
    """Return the id of the newest event, 0 when there is none."""
    return await connection.scalar(select(func.max(events.c.id))) or 0


async def events_after(
    connection: AsyncConnection, after: int, limit: int
) -> list[tuple[int, float, str, str | None, Any]]:
    """Return (id, at, kind, node name, data) of the events with a larger id, oldest first."""
    query = select(events).where(events.c.id > after).order_by(events.c.id).limit(limit)
    return [_fields(row) for row in await connection.execute(query)]


async def events_of_node(
    connection: AsyncConnection, node_id: str, before: int | None, limit: int
) -> list[tuple[int, float, str, str | None, Any]]:
    """Return (id, at, kind, node name, data) of a node's events, newest first."""
    found: list[ColumnElement[bool]] = [events.c.node_id == node_id]
    if before is not None:
        found.append(events.c.id < before)
    query = select(events).where(*found).order_by(events.c.id.desc()).limit(limit)
    return [_fields(row) for row in await connection.execute(query)]


async def delete_events(connection: AsyncConnection, until: float, limit: int) -> int:
    """Delete up to `limit` of the oldest events from before `until`; return how many.

    The newest event always stays, so that ids never start again and a reader's place stays good.
    """
    old = (
        select(events.c.id)
        .where(events.c.at < until, events.c.id < select(func.max(events.c.id)).scalar_subquery())
        .order_by(events.c.id)
        .limit(limit)
    )
    result = await connection.execute(delete(events).where(events.c.id.in_(old)))
    return result.rowcount


def _fields(row: Any) -> tuple[int, float, str, str | None, Any]:
    return row.id, row.at, row.kind, row.data["node"], row.data["data"]
