"""Queries on the stored events; `hub.events` is their only user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.store.schema import events

_INSERT = insert(events)
_INSERT_ONE = _INSERT.returning(events.c.id)
_LAST_ID = select(func.last_insert_rowid())


@dataclass(frozen=True, slots=True)
class Draft:
    """An event before it has an id; `data` is a JSON document."""

    at: float
    """Seconds since the epoch."""
    kind: str
    node_id: str | None
    node: str | None
    """The node's name as it is now."""
    data: dict[str, Any]


async def insert_events(connection: AsyncConnection, drafts: Sequence[Draft]) -> range:
    """Store events in their order; return their ids.

    The ids of many follow each other: SQLite takes the largest plus one, and nobody else writes.
    """
    rows = [
        {
            "at": draft.at,
            "kind": draft.kind,
            "node_id": draft.node_id,
            "data": {"node": draft.node, "data": draft.data},
        }
        for draft in drafts
    ]
    if not rows:
        return range(0)
    if len(rows) == 1:
        last: int = (await connection.execute(_INSERT_ONE, rows[0])).scalar_one()
    else:
        await connection.execute(_INSERT, rows)
        last = (await connection.execute(_LAST_ID)).scalar_one()
    return range(last - len(rows) + 1, last + 1)


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
