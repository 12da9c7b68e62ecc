"""Queries on shell sessions, for `hub.shells` alone; functions take the connection first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.store.schema import shell_sessions


@dataclass(frozen=True, slots=True)
class ShellRow:
    """One session as stored; `ended_at` is None while it is open."""

    id: str
    node_id: str
    node_name: str
    subject: str
    origin: str
    argv: list[str]
    started_at: float
    ended_at: float | None = None
    exit_code: int | None = None
    reason: str = ""


_TABLE = shell_sessions.c
_COLUMNS = (
    _TABLE.id, _TABLE.node_id, _TABLE.node_name, _TABLE.subject, _TABLE.origin, _TABLE.argv,
    _TABLE.started_at, _TABLE.ended_at, _TABLE.exit_code, _TABLE.reason,
)  # fmt: skip


async def insert_session(connection: AsyncConnection, row: ShellRow) -> None:
    """Store a session that is about to be opened."""
    await connection.execute(
        insert(shell_sessions).values(
            id=row.id,
            node_id=row.node_id,
            node_name=row.node_name,
            subject=row.subject,
            origin=row.origin,
            argv=row.argv,
            started_at=row.started_at,
        )
    )


async def end_session(
    connection: AsyncConnection, session_id: str, at: float, exit_code: int | None, reason: str
) -> None:
    """Store how a session ended."""
    await connection.execute(
        update(shell_sessions)
        .where(_TABLE.id == session_id)
        .values(ended_at=at, exit_code=exit_code, reason=reason)
    )


async def end_open_sessions(connection: AsyncConnection, at: float, reason: str) -> int:
    """End the sessions that a hub left open when it stopped; return how many."""
    result = await connection.execute(
        update(shell_sessions).where(_TABLE.ended_at.is_(None)).values(ended_at=at, reason=reason)
    )
    return result.rowcount


async def list_sessions(
    connection: AsyncConnection, limit: int, before: str | None
) -> tuple[list[ShellRow], int]:
    """Fetch the newest sessions, those with an id below `before`, and how many there are."""
    query = select(*_COLUMNS).order_by(_TABLE.id.desc()).limit(limit)
    if before is not None:
        query = query.where(_TABLE.id < before)
    rows: Sequence[Any] = (await connection.execute(query)).all()
    total = await connection.execute(select(func.count()).select_from(shell_sessions))
    return [ShellRow(*row) for row in rows], total.scalar_one()
